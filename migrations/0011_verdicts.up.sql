-- What a provider itself has said of its limit, for whoever asks why mail waits. It is of interest while the limit is
-- spent, and no longer than its span.
ALTER TABLE budgets
  ADD COLUMN told    text CHECK (length(told) <= 1000),
  ADD COLUMN told_at timestamptz,
  ADD CONSTRAINT budgets_told_whole_check CHECK ((told IS NULL) = (told_at IS NULL));
