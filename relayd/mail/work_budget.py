"""How much work one report may cost, counted in steps: about a line looked at, or an address compared."""

# Some 0.2 s of CPU. The largest of the reports that real systems have sent us takes 3,000.
REPORT_STEPS = 100_000


class WorkBudget:
    """Counts steps. What asks for more than is left does without."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.spent = 0

    def take(self, steps: int) -> bool:
        """Spend steps, or False once they are not there."""
        if self.spent + steps > self.steps:
            self.spent = self.steps
            return False
        self.spent += steps
        return True
