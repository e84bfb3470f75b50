"""The words by which mail systems speak of a bounce or a delay, in the languages in which they do. Data."""

import re


def _any(phrases: str) -> re.Pattern[str]:
    """Any of the expressions, one a line or more; a backslash at its end goes on in the next."""
    return re.compile("|".join(phrases.replace("\\\n", "").strip().split("\n")), re.IGNORECASE)


# Who writes bounces: the local part of From, or its display name.
DAEMON_LOCAL_PART = re.compile(
    r"(?:mailer[-_.]?daemon.*|mail[-_.]?daemon.*|mdaemon|post[-_.]?master(?:[-_.+\d].*)?|maildelivery|mail[-_.]?delivery.*|"
    r"delivery[-_.]?subsystem|bounces?|bounced?[-_+.].*|mta|mailadmin|maildaemon|microsoftexchange.*|"
    r"exchange[-_.]?(?:admin|daemon)|root|daemon|mail|mailer|"
    r"smtp[-_.]?(?:daemon|gateway)|system[-_.]?(?:admin|administrator|attendant)|administrator|"
    r"undeliverable|noreply-?(?:mail)?daemon|double-bounce|dsn|ndr)\Z",
    re.IGNORECASE,
)
DAEMON_NAME = _any(
    r"""
mail ?delivery|delivery (?:sub)?system|mailer.?daemon|mail (?:administrator|admin|system|service|router)
\bpostmaster|system administrator|microsoft (?:outlook|exchange)|mail ?server|internet mail|mdaemon
delivery (?:notification|service|agent)|systemadministrator|administrat(?:eur|or|ore) (?:syst|de sist|di sist)
mail gateway|mail transport|undeliver|почтов|メール配信|系统管理员|邮件系统
"""
)

# Those of them that no person has for an own address. People write as root, mail or administrator, too.
DAEMON_ALONE = re.compile(
    r"(?:mailer[-_.]?daemon.*|mail[-_.]?daemon.*|mdaemon|post[-_.]?master(?:[-_.+\d].*)?|"
    r"mail[-_.]?delivery.*|delivery[-_.]?subsystem)\Z",
    re.IGNORECASE,
)
# Addresses that nobody writes from by hand.
MACHINE_LOCAL_PART = re.compile(
    r"(?:.*[-_.+])?(?:(?:no|not|do[-_.]?not|don'?t)[-_.]?(?:reply|respond|answer)|notifications?|notify|"
    r"mail[-_.]?errors?|error[-_.]?mail|bounces?)(?:[-_.+\d].*)?\Z",
    re.IGNORECASE,
)

# Subjects of bounces.
SUBJECT = _any(
    r"""
undeliver(?:ed|able)|un-deliverable|returned (?:mail|message|to sender)|return(?:ed)? mail|mail returned
returning message|failure notice|delivery.{0,24}(?:fail|error|problem|unsuccessful|impossible|abort|status)
delivery (?:notification|report)
(?:mail|message|e-?mail).{0,24}(?:fail|undeliver|not (?:be )?deliver|could ?n.?t? be deliver|cannot be|\
bounced|rejected|blocked|error)|fail(?:ed|ure).{0,20}(?:deliver|message|mail)|non.?deliver|not deliver
nondeliver|bounced?\b.{0,20}(?:mail|message)|nicht zugestellt|unzustellbar
zustell(?:ung|en|fehler|bericht|status)|nicht zustellbar|mailzustellung|nicht übermittelt|rücksendung
fehlgeschlagen|non (?:remis|distribu|délivr|livr)|échec|echec|impossible de remettre|non-remise|non remise
notification d.état de remise|courrier retourné|retour à l.expéditeur|no se (?:pudo|puede|ha podido) entregar
no entregad|devuelto|error (?:de|en la) entrega|entrega fallida|fallo (?:de|en la) entrega|no se entreg
não (?:foi )?(?:possível )?entreg|nao (?:foi )?entreg|devolvid|falha (?:na|de|ao) entreg|erro (?:na|de) entrega
mancat[ao] (?:consegna|recapito)|impossibile recapitare|non (?:è stato )?recapitat|non consegnat
errore di (?:consegna|recapito)|notifica (?:di|sullo) .{0,20}(?:consegna|recapito)|non recapitabile|onbestelbaar
niet (?:worden )?(?:afgeleverd|bezorgd|geleverd)|kan niet worden (?:afgeleverd|bezorgd)|niet bezorg
retour afzender|недоставлен|не доставлен|не удалось доставить|недоставк|возвращен|ошибка доставки
не может быть доставлено|退信|无法(?:投递|送达|传递|发送)|無法(?:投遞|送達|傳遞|遞送|傳送)|投递失败|发送失败
未送达|未传递|未傳遞|传递失败|傳遞失敗|退回|配信(?:不能|不可|失敗|エラー|できま)|配達(?:不能|できま|不可)
送信(?:できま|エラー|失敗)|届きませんでした|未達
エラーメール|メールエラー|エラー通知|不達|返送|반송|전송 ?(?:실패|불가)|배달(?:되지|할 수|못)
nie(?:dostarczon| dostarczon| można dostarczyć)|zwrot|nedoru[cč]|kézbesít|nu a putut fi livrat
kunde inte levereras|ej leverer|kunne ikke leveres|kan ikke leveres|ei voitu toimittaa|teslim edilemedi
iletilemedi|не удается доставить|сбой доставки|gick inte att leverera|kan inte levereras|kunne ikke leveres
epäonnistui|delivery failure|mail system error|message status|nachricht konnte nicht|user unknown
mailbox (?:full|unavailable)|permanent (?:delivery )?(?:error|fail)|considered unsolicited bulk
banned (?:contents|file)|メール(?:送信|配信|配達)?エラー
エラー(?:通知|のお知らせ)|(?:不達|返送|返却)(?:通知|メール|のお知らせ)
(?:送信|配信|配達)(?:不達|されませんでした|結果)|届かな(?:い|かった)
배달 ?실패|발송 ?실패|수신 ?실패|되돌아온
传送失败|邮件(?:被)?退|递送失败
寄信失敗|寄送失敗|無法寄達|郵件退|unzugestellt|kunne ikke sendes|ikke leveret|levering(?:s)?(?: mislyk|feil|fejl)|misluk
leveransfel|leverans misslyck|oleverera|toimitus ei|perille|doručen[íi] (?:se )?ne|nelze doručit|nebolo doručen
nedoručen
niedoręcz|nie doręczon|nekézbesí|sikertelen|nelivrat|nedostav|neuspjel|neisporuč|не доставя|недоставя|неуспешн|недоставк
αδυναμία παράδοσης|αποτυχία (?:παράδοσης|αποστολής)|μη παραδοτέο|teslim (?:edilemeyen|hatası)|iletilemeyen|gönderilemedi
فشل (?:في )?(?:التسليم|الإرسال|تسليم|إرسال|توصيل)
(?:لم يتم|تعذر|تعذّر) (?:تسليم|التسليم|إرسال|توصيل)
מסירה נכשלה
(?:לא נמסרה|לא ניתן למסור|כשל במסירה)
ส่งไม่สำเร็จ
(?:ไม่สามารถ|การ)(?:ส่ง|นำส่ง)[^ ]{0,30}(?:ได้|ล้มเหลว|ไม่สำเร็จ)|không (?:gửi|thể gửi|chuyển|thể chuyển)
(?:gửi|chuyển) (?:thư |email )?(?:thất bại|không thành công)
gagal (?:dikirim|terkirim|mengirim|dihantar)|pengiriman gagal|tidak (?:terkirim|dapat dikirim)|डिलीवर नहीं|تحویل نشد
عدم تحویل
"""
)

# What a bounce says in its body, whoever writes it.
BODY = _any(
    r"""
(?:could|can|did|was|were|has|have) ?(?:not|n.t) (?:been |be )?(?:successfully )?(?:deliver|reach|sent\b)
cannot be delivered|not delivered to|unable to (?:be )?(?:deliver|send|relay)|undeliver(?:ed|able)
delivery (?:to|of|has|attempt|status).{0,80}(?:fail|error|unsuccess|not )
fail(?:ed|ure) (?:to deliver|permanently|for|in delivery|addresses)|permanent (?:fatal )?(?:error|fail)
addresses (?:had|failed|with)|returned (?:to (?:you|sender)|mail|below)|i'm afraid i wasn't able to deliver
i'm not going to try again|i've given up|giving up|was not delivered|wasn't delivered
message (?:was |has been )?(?:rejected|bounced|blocked|refused|not accepted)|delivery failed|not be delivered
no such user|user unknown|unknown user|transcript of session follows|could not send message
mail(?:box)? (?:is )?(?:full|unavailable|disabled)|did not reach the following|could not deliver
recipient(?:s|\(s\))?.{0,40}(?:not (?:be )?(?:found|reached|deliver|exist)|rejected|unknown|invalid|failed)
nicht (?:zugestellt|übermittelt|erreich|ausgeliefert|zustellbar)|unzustellbar|konnte nicht|fehlgeschlagen
(?:n.a|n.ont|n.est|n.a pas) p(?:u|as) .{0,30}(?:remis|distribu|délivr|livr|être)
impossible de (?:remettre|distribuer|livrer|délivrer)|n.a pas été (?:remis|distribu|délivr)
échec (?:de|définitif)|no (?:se )?(?:pudo|puede|ha podido|ha sido posible|fue posible) .{0,30}(?:entreg|enviar)
no se (?:ha )?entreg|não (?:pôde|foi|p[oô]de) .{0,30}entreg|não foi possível
non (?:è stato|può essere|è stata|è possibile|sono stati) .{0,40}(?:recapit|consegn|invia)
impossibile (?:recapitare|consegnare)|mancata consegna|niet (?:worden )?(?:afgeleverd|bezorgd|geleverd)
kon niet worden|не (?:доставлен|может быть доставлен|удалось (?:выполнить )?достав|удается достав|было доставлено)
сбой доставки|не вдалося достав|недоставлен|ошибк
(?:无法|未能|不能)(?:被)?(?:投递|送达|传递|发送|送到)|(?:無法|未能)(?:投遞|送達|傳遞|遞送|傳送)|退信|退回|失败
失敗|(?:配信|配達|送信|お届け|届け)(?:する)?(?:ことが)?(?:でき|不能|不可|エラー|失敗)|届きませんでした
宛先(?:が|メールアドレス)?.{0,20}(?:見つか|存在|不明|確認)|반송|전송하지 못|nie (?:można|mogła|została|udało)
배달하지 못|배달할 수 없|배달되지|teslim (?:edilemedi|başarısız)|kunde inte levereras|inte att leverera|kunne ikke
(?:toimitus|toimittaminen).{0,40}epäonnistui|nepodařilo .{0,40}doručit|nem sikerült .{0,20}kézbesít
"""
)

# A report that something still waits, said of the whole message or of the subject.
DELAY_SUBJECT = _any(
    r"""
\bdelay|warning: (?:could not send|message|delivery)|still (?:trying|being)|deferred|not yet (?:been )?deliver
verzöger|verspät|retard|remise différée|retrasad|demora|aplazad|atrasad|atraso|in ritardo|ritardat|vertraag
vertraging|задерж|отложен|延迟|延遲|遅延|遅れて|지연|opóźni|försen|forsink
"""
)
DELAY_BODY = _any(
    r"""
this is a warning message only|warning message only|you do not need to resend
do not (?:need to )?resend (?:your|the|this) message|no action is required on your part
no need to (?:resend|retry)|delivery attempts will continue
will (?:keep|continue) (?:on )?(?:trying|to (?:try|attempt|be))|will be (?:retried|attempted again|tried again)
(?:i|we)(?:'ll| will) (?:keep )?try(?:ing)?(?: to deliver)?(?: again| for)|still being retried
not yet been delivered|(?:has|have) been delayed|delivery is delayed|delivery.{0,30} delayed
message still undelivered|will retry|remains? in the queue|noch nicht zugestellt|weitere zustellversuche
weiter versuch|erneut versuch|zustellung.{0,40}verzöger|tentatives.{0,40}(?:se poursuiv|continu)
nouvelle tentative|seguir[áa] intentando|se intentará|continuar[áa] tentando|continueremo
verranno effettuati altri tentativi|ulteriori tentativi|blijven proberen|nog niet (?:afgeleverd|bezorgd)
попытки.{0,40}продолж|будет продолж|再送信?を(?:試み|続け)|配信が遅|继续尝试|繼續嘗試
"""
)
# What ends a delay.
GIVEN_UP = _any(
    r"""
giving up|given up|permanent(?:ly)? (?:fatal )?(?:error|fail)|no longer (?:be )?(?:try|tried|attempt)
not going to try|will not be (?:retried|tried)|(?:message|mail) (?:is |was |has been )?(?:returned|bounced)
retry (?:time(?:out)?|limit) exceeded|too (?:long|old)|max(?:imum)? .{0,30}(?:exceeded|reached)|expired
delivery (?:has )?failed|failed permanently|endgültig|définitif|definitiv
"""
)
