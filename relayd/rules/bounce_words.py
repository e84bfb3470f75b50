"""The words of mail systems, in the languages in which they speak, by what they mean. Data.

Expressions for IGNORECASE, any of the lines of each; a line that ends in a backslash goes on in the next.
"""

import re

TOO_LARGE = r"""
message.{0,20}(?:too (?:large|big|long)|exceeds)
(?:size|length) (?:of .{0,30})?(?:limit|exceeds|exceeded|restriction|too)
too (?:large|big) (?:a )?(?:message|mail)|exceeds? .{0,40}(?:maximum|max|fixed)? ?(?:message |mail )?size
larger than|message (?:size|length).{0,30}exceed|nachricht.{0,30}zu gro(?:ß|ss)|größenbeschränkung
trop (?:gros|volumineux|grand)|demasiado grande|muito grande|troppo grande|te groot|слишком большо
超过.{0,12}(?:大小|限制)|太大|サイズ.{0,10}(?:超|大き|制限)|overssize|oversize
"""
# No way leads to this recipient: RFC 7505, and what Exim says of one that it does not know. Before all others, since
# it is said together with words that mean something else by themselves.
NO_ROUTE = r"""
null ?mx|indicated no smtp service|unroute?able address
"""
TEMPORARY = r"""
(?:host|name|domain) not found,? try again|servfail|name service error.{0,120}try again
"""
MAILBOX_FULL = r"""
(?:mail ?box|mailfolder|inbox|account|user|folder|storage|recipient|postfach|quota).{0,40}(?:(?:is |\
was )?(?:full\b|over ?quota|exceeded|overdrawn|voll\b)|out of (?:space|storage)|über(?:füllt|schritt|schreit))
over ?(?:the )?quota|over ?(?:its |their |his )?(?:disk|storage|mailbox)? ?quota|quota.{0,20}exceed
exceed.{0,30}quota|exceed.{0,30}storage|disk quota
(?:not enough|insufficient) (?:system )?(?:storage|space|disk)|mailbox.{0,30}(?:limit|no space)
no (?:space|room) (?:left|for)|out of storage|quota (?:full|violat)|user has (?:exhausted|too many messages)|overquota
mbox.{0,10}full|inbox is (?:now )?full|ist voll\b|voll\b.{0,20}postfach
mail system (?:is )?full
bo[iî]te (?:aux lettres |mail |de réception )?.{0,20}(?:pleine|saturée)|pleine
quota (?:dépass|superad|excedid|overschred|superat)|(?:buz[oó]n|bandeja).{0,20}llen[oa]
(?:superad|excedid|supera|excede).{0,24}(?:capacidad|espacio|capacidade)|llen[oa]
caixa (?:de )?(?:postal|correio|entrada|mensagens).{0,20}chei|casella.{0,24}(?:piena|esaurit)
(?:mailbox|postvak|brievenbus).{0,24}vol\b|(?:ящик|почт).{0,30}(?:переполнен|заполнен)|переполнен
превышен.{0,16}(?:квот|лимит)|квот|邮箱.{0,8}(?:已满|满)|信箱.{0,8}(?:已滿|滿)|空间不足
容量.{0,8}(?:超|满|不足|いっぱい)|(?:メールボックス|受信箱).{0,24}(?:一杯|いっぱい|満杯|超)
quotum.{0,20}overschred|speicherplatz.{0,30}(?:ersch[oö]e?pft|überschritt)|kvote.{0,16}overskre|사서함.{0,12}가득
편지함.{0,20}(?:가득|초과)|용량.{0,10}초과|overfull
"""
RATE_LIMITED = r"""
rate.{0,6}limit|too (?:many|much) (?:[a-z]{1,20} ){0,2}(?:messages|mails|e-?mails|connections|sessions|recipients|mail)
(?:try|retry)(?: again)? in \d{1,5} (?:sec|min|hour)|limits? for how many messages
receiving mail (?:at a rate|too quickly)|thrott?l|(?:temporarily|permanently) deferred
(?:hourly|daily|sending|message|sender) (?:sending )?(?:rate|limit|quota).{0,30}(?:exceed|reach)
exceeded.{0,40}(?:rate|per (?:hour|day|minute))|grey ?-?list|greylist|try again later.{0,30}rate
exceed(?:s|ed)? (?:the |your |its )?(?:[a-z]{1,12} ){0,3}(?:limits?|rate)\b(?! of (?:its|the) (?:mail ?box|storage))
excessive (?:rate|volume)|frequency limit|sent to too many|too many (?:e-?mails|messages|recipients|mails)|slow down
user has reached|频率|频繁|流控
"""
RELAYING = r"""
relay(?:ing)? (?:access )?(?:is )?(?:denied|not (?:permitted|allowed)|prohibited|disallowed|forbidden|\
rejected|refused)|not (?:permitted|allowed|authori[sz]ed) to relay|unable to relay|cannot relay|can't relay
relay.{0,16}(?:denied|not permitted|prohibit|disabled|failed)
(?:not|isn't) (?:in my list of (?:allowed )?rcpthosts|a local (?:domain|host)|local (?:domain|host))|rcpthosts
not (?:the )?(?:mail ?server|mail ?host|responsible) for|nicht zuständig|pas responsable
we do not relay|do(?:es)? not relay|no relaying
domain (?:\S{1,80} )?(?:is )?not (?:hosted|local|served)|not (?:a )?gateway
relais (?:interdit|refus)|authentication required for relay|nicht erlaubt.{0,12}relay
"""
AUTH = r"""
dmarc|\bspf\b|dkim|sender id|sender policy framework|unauthenticated (?:e-?mail|mail)
(?:not|isn't|fails?|failed) (?:to )?(?:pass )?authenticat|authentication.{0,30}(?:fail|require|check)
not (?:authori[sz]ed|allowed|permitted) to send (?:mail |e-?mail |messages )?(?:on behalf|as|from|for)\b
fails? (?:[a-z]{1,20} )?authenticat|sender verif|sender address (?:verification|rejected)
domain of sender|(?:unknown|bad|invalid) sender\b
sender (?:domain|unknown|invalid)|invalid (?:helo|ehlo)|name in (?:helo|ehlo)|mail from unknown users
reverse dns|\bptr\b|no rdns|rdns|helo (?:command )?(?:rejected|invalid)|arc[ -](?:seal|set|chain|valid|fail)
turn on (?:smtp )?auth|unauthenticated|(?:authenticate|log ?in) (?:first|before)|smtp auth
"""
BLOCKED = r"""
black ?-?list|block ?-?list|\brbl\b|dnsbl|\bsbl\b|\bxbl\b|\bpbl\b|spamhaus|spamcop|barracudacentral|sorbs
uceprotect|proofpoint.{0,20}block|senderbase|cloudmark|invaluement|abusix
(?:ip|host|server|client|network|sender|domain|address).{0,60}(?:is |are |was |has been |\
have been )?(?:temporarily |currently )?(?:block|banned|(?<!not )listed (?:in|on|at|by|as)|denylist|denied access)
blocked (?:using|for|due(?! to inactiv)|because(?! (?:its|of (?:its|the) content))|by(?! (?:policy|content|our|\
the (?:content|spam))))|[45]\d\d (?:[45]\.\d\.\d )?blocked\b|reputation|poor rep|(?<!not )listed (?:in|on|at|by)
deny ?-?list|dynamic (?:ip|address|pool|range)|not in (?:the |our )?whitelist|(?:junk|abuse|spam) from your
domain.{0,30}(?:younger|too (?:new|young)|newly registered)
banned|(?:access|connection) (?:denied|refused|blocked).{0,40}(?:ip|list|reputation|abuse|spam)
not accepting mail from|refused.{0,20}(?:your ip|by .{0,20}list)|bad reputation|low reputation|s3140|s3150
\(ip\).{0,20}rejected|unusual rate of unsolicited|mail(?:s)? from .{0,60}(?:rejected|refused|blocked)
messages? from .{0,60}weren.?t sent|attack detected|ip=‹ip› - a problem occurred|\bhl:[a-z]{3}\b
‹ip›\W{0,3}(?:is |was |has been )?(?:temporarily )?(?:block|listed|denied)|‹list›
"""
SPAM_OR_POLICY = r"""
spam\b|spam[- ]?(?:like|score|content|message|filter)|\buce\b|\bube\b|unsolicited|junk ?mail
considered.{0,20}bulk|bulk mail|virus|malware|phish|suspicious|prohibited|banned (?:content|attachment|file)
content.{0,30}(?:reject|filter|block|unacceptable|denied|not allowed)|(?:reject|block|refus)[a-z]*.{0,30}content
(?:message|mail).{0,40}(?:looks like|scored|classified|identified as)
attachment.{0,40}(?:not allowed|blocked|forbidden|prohibited|reject|removed)
(?:polic(?:y|ies)|security|administrative).{0,30}(?:reason|violat|reject|prohibit|restrict|denied|block|block)
policy|(?:administrative|administratively) (?:prohibit|prohibition|denied)
not (?:authori[sz]ed|permitted|allowed) to (?:send|mail|post|e-?mail)|you (?:do not|don't) have permission
requires? (?:that )?(?:all )?senders?.{0,20}authenticated|restricted|only (?:accept|receive)s?.{0,40}(?:from|messages)
sender (?:denied|rejected|not allowed|is not (?:on|in|allowed))
transaction (?:rejected|failed).{0,20}(?:policy|reputation)|refused by
(?:message|mail) (?:was )?(?:rejected|refused) (?:by|for|due|because)|垃圾邮件|垃圾郵件|迷惑メール|スパム|фильтр
спам|спама|indésirable|courrier indésirable|no deseado|richtlinie|politique de|pol[ií]ticas?\b|conteúdo
(?:recipient|address) (?:has )?(?:rejected|refused) (?:your|this) (?:message|mail|e-?mail)
\b(?:dt|mi):[a-z]{3}\b|does not allow external forwarding
contenu.{0,20}refus|拒否設定|受信拒否
"""
LOOP = r"""
mail(?:er)? loop|loops? back to (?:myself|me)|routing loop|too many hops|hop count
(?:message|mail|forwarding|delivery) (?:is )?loop|looping|loop detected|maximum hop|too many received
delivered-to.{0,20}(?:my|this)|boucle|schleife|bucle|循环|ループ
"""
INACTIVE = r"""
(?:account|mail ?box|user|recipient|address|e-?mail|konto|postfach|compte|cuenta|conta|\
casella).{0,50}(?:(?:is |has been |was |been )?(?:currently |temporarily |permanently )?(?:disabled|\
inactive|deactivat|suspend|locked|expired|closed|terminated|discontinued|blocked\b|frozen|not active|\
no longer (?:active|in use|available|monitored|accept)))
(?:disabled|inactive|suspended|deactivated|expired|closed|abandoned|locked|dormant) (?:user|account|\
mail ?box|recipient|address|domain)|not (?:currently )?(?:accept|receiv)(?:ing)? (?:mail|messages|email)
no longer (?:with|works|employed|at this)|deaktiviert|gesperrt|stillgelegt|désactivé|inacti[fv]|desactivad
desativad|disattivat|disabilitat|suspendid|uitgeschakeld|geblokkeerd|gedeactiveerd|отключ[её]н|заблокирован
inactivity|retired|compte.{0,20}(?:supprim|suspend|ferm|clos)|(?:účet|konto).{0,20}zablok
(?:account|mail ?box|user).{0,40}(?:on hold|cancel|deleted|removed)
неактивн|停用|禁用|冻结|已注销|锁定|無効|停止|휴면|정지
(?<!service )(?<!service is )(?:no longer|not) (?:valid|in service|in use|available)
user is (?:away|gone)|has moved|have moved|left the (?:company|organi[sz]ation)
"""
DOMAIN_NOT_FOUND = r"""
(?:host(?! said)|domain|mx|dns)(?: or domain)?(?: name)?[ :"'(<\[]{1,4}(?:\S{1,80} ){0,2}(?:not found|does(?: not|\
n't) exist|unknown|invalid|non-?exist|could not be (?:found|resolved)|couldn't be found|\
can ?not be (?:found|resolved)|nxdomain|unrout|unresolv)|unknown (?:host|domain|mail ?host|server)
(?:host|domain|name).{0,20}(?:lookup|resolution).{0,20}(?:fail|error)|no (?:such|valid) (?:host|domain)
no (?:mx|mail (?:server|exchanger)|dns|a) ?(?:or a )?(?:record|host|server)?s? (?:found|for|exist)|nxdomain
unrout(?:e)?able (?:mail )?(?:address|domain)|unrouteable|couldn't find (?:any|a) host
domain.{0,40}(?:could not|can ?not|can.t) be resolved
bad destination (?:host|system)|domain (?:has no|does not accept mail|is not (?:valid|found|registered|accept))
misspelled domain|all relevant mx records point to non|illegal host|host not found
hostname.{0,20}(?:not|unknown)|is not a valid (?:domain|hostname)
dns (?:error|type|query|failure|problem|name error)
(?:domain|domäne|domaine|dominio|domínio|dominio|domein|домен|域名|域|ドメイン|\
호스트).{0,40}(?:nicht (?:gefunden|gefunden werden|existier)|introuvable|n'existe pas|no (?:existe|\
se encontr|encontr)|não (?:exist|encontr)|inesistent|non (?:esist|trovat)|niet (?:gevonden|bestaa)|\
не (?:найден|существ)|不存在|找不到|无法找到|見つか|存在しない)|server nicht gefunden
"""
NO_SUCH_USER = r"""
(?:no|not a|non) (?:such|valid|local|known|existent)? ?(?:user|mail ?box|recipient|account|address|person|\
alias|customer|e-?mail)(?:s)?\b.{0,30}(?:here|by that name|found|with that|at this|of that|\Z|with this|\
named|called|in )|no such|no mailbox (?:here|by|with|found)
(?:user|recipient|mail ?box|account|address|addressee|login|alias|customer|person|e-?mail|name|\
id)(?: \S{1,80})?.{0,60}(?:unknown|not (?:be )?(?:found|exist|known|listed|recogni[sz]ed|valid|local|\
registered|available|present|allocated|active)|does(?: not|n't) (?:exist|have)|do not exist|doesn't exist|\
invalid|undeliverable|non-?exist|couldn't be found|can'?t be found|wasn't found|cannot be found|\
isn't|incorrect|is not (?:a )?(?:valid|local|known|unique|here)|is invalid)
(?:unknown|invalid|nonexistent|non-existent|unrecognized|bad|illegal|incorrect|undeliverable|not existing|\
unable to find|can't find|cannot find|could not find) (?:local |or illegal |e-?mail |destination |\
or misspelled |virtual )*(?:user|recipient|mail ?box|account|address|alias|local.?part|addressee|customer|\
mailbox name|rcpt)|recipnotfound|recipientnotfound
not listed in (?:the )?(?:domino|public|name|address|directory)
not (?:in|on) (?:the |our |my )?(?:directory|address ?book|system)
user (?:\S{1,80} )?(?:unknown|not found|doesn't|does not|not listed|not known|no longer)|unknown user
unknown (?:address|recipient|account|mailbox)|doesn't have an? .{0,30}account
this (?:user|account|address|mailbox) (?:does not|doesn't|is not|isn't)|don't (?:exist|know|have)|does not exist
doesn't exist|no longer exist|nonexist|non-exist|not a (?:known|valid|registered)|couldn't be found|wasn't found
could not be found|address not found|mailbox not found|n.est pas valide
nicht (?:bekannt|g[uü]e?ltig)|kein postfach|(?:пользовател|адрес|ящик).{0,20}\bнет\b
validrcptto|not known (?:at|here|to|on)\b|do(?:es)? not have an? (?:user|account|mailbox|recipient)
not our customer|unknown or illegal alias
(?:unbekannt|existiert nicht|nicht gefunden|nicht vorhanden|kein (?:solcher|gültiger)|keine mailbox|\
ungültige[rs]? (?:empfänger|adresse)|adresse.{0,40}(?:existiert|ungültig|gefunden|nicht)|\
empfänger.{0,40}(?:unbekannt|nicht|ungültig))|n'existe (?:pas|plus)|introuvable|inconnu|inexistant
adresse.{0,30}(?:incorrecte|invalide|erronée|rejet)|destinataire.{0,40}(?:refus|invalide|incorrect)
no (?:existe|se encontró|se ha encontrado|se pudo encontrar|encontrad|fue encontrad|válid)|desconocid
inexistente|inválid|destinatario.{0,40}(?:no |rechazad|errón)
direcci[oó]n.{0,30}(?:no |inválid|incorrect|rechazad)|n[ãa]o (?:existe|foi encontrad|encontrad|localizad|é válid)
desconhecid|usu[áa]rio.{0,20}(?:n[ãa]o|inexist)|inesistente|non (?:esiste|trovat|è stato trovato|valid)|sconosciut
indirizzo.{0,40}(?:non |errat|inesist)|(?:niet (?:gevonden|bestaand)|bestaat niet|onbekend|ongeldig)
не (?:существует|найден|обнаружен|зарегистрирован)|неизвест|нет (?:такого|пользовател)|несуществ|недействительн
用户不存在
(?:地址|收件人|账号|帐号|邮箱|用户|邮件地址|收件者|帳號|使用者).{0,16}(?:不存在|无效|無效|错误|不正确|\
找不到|未找到)|找不到.{0,12}(?:收件人|用户|邮箱|地址|使用者)|不存在|存在し(?:ない|ません)|見つかりません
見つけられません|宛先.{0,16}(?:不明|間違|存在|誤)|ユーザー?.{0,16}(?:不明|存在|見つか)|아이디|존재하지
없는 (?:사용자|메일|주소)|(?:주소|사용자|받는 ?사람).{0,16}찾을 수 없
수신자.{0,20}(?:없|찾을)|neexist|neznám|nie istnieje|nie ma takie|nieznan|nem létez|ismeretlen
finns inte|kunde inte hittas|okänd|findes ikke|(?:blev|ble) ikke (?:fundet|funnet)|ukendt|finnes ikke|ukjent
ei (?:ole|löydy)|bulunamadı|kullanıcı yok|mevcut değil|nu există
"""
# An address is refused in words that are also used for a policy, or that say nothing of why.
ADDRESS_REFUSED = r"""
(?:mail ?box|user|recipient|account|address).{0,40}(?:rejected|unavailable|not available|not taken|refused)
(?:address|recipient) (?:failed|error)|550 invalid|verification failed|addresses? (?:had|with) .{0,10}error
(?:can.t|cannot|could not|unable to) verify (?:the )?(?:recipient|address|user|mail ?box)|that (?:address|user)
delivery to the following recipients? (?:failed|was)|rcpt to .{0,40}(?:rejected|refused)|undeliverable address
"""
UNREACHABLE = r"""
(?:lost|no) connection
(?:connection|connect|connecting|session|conversation|operation|network|socket).{0,40}(?:timed? ?out|\
refused|reset|lost|dropped|closed|failed|error|terminated|unreachable)|timed? ?out|no route to host
network (?:is )?unreachable|host (?:is )?not reachable|did not accept (?:our|the|any) (?:requests? to )?connect
name server reply|network (?:is )?down|unable to connect|could ?n.?t connect|cannot connect
host.{0,24}(?:down|not respond|unreachable)|not responding|did not respond|no (?:answer|response)
(?:retry|delivery|queue|message) (?:time|time ?out|timeout|period|lifetime|limit).{0,24}(?:exceed|expir|\
reach|been)|retry timeout|(?:message|delivery|mail) (?:has |time )?(?:expired|in queue too long|too old)
too long in (?:the )?queue|in the queue too long|expired|deferr|unable to deliver.{0,20}(?:days|hours)
could not be delivered (?:for|in|within|after)|for (?:more than )?\d{1,3} (?:days|hours)|giving up
service (?:is )?(?:currently )?(?:not available|unavailable|temporarily)
temporar(?:y|ily) (?:failure|unavailable|error|problem|local problem|rejected|suspended)|try(?:ing)? again later
server (?:busy|error|unavailable|is (?:busy|down)|too busy)|system (?:error|resources)
internal (?:server )?error|local (?:error|configuration)|tls (?:negotiation|handshake|required|is required)
start ?tls|handshake fail
zeitüberschreitung|nicht erreichbar|délai|tiempo de espera|tempo (?:limite|esgotado)|время ожидания
超时|超時|タイムアウト|connexion|connessione|conexión|conexão|соединен|连接|接続
"""
CONTENT = r"""
syntax error|malformed|header|mime|line too long|8-?bit|not rfc|rfc ?(?:822|2822|5321|5322)|bare (?:lf|cr)
charset|smtputf8|conversion|encod|message format|invalid message|non-?compliant|duplicate|unsafe|dangerous
forbidden|(?:attachment|archive|file)s?.{0,30}not (?:accept|allow|permit)
"""
# Of the message, where nothing says more.
REFUSED = r"""
(?:mail|message|e-?mail|transaction|delivery)s? (?:was |is |has been )?(?:rejected|refused|denied|blocked|not accepted)
mail rejet|access denied|\bblocked\b
"""


# Not within a word of Latin letters; other scripts write without spaces.
_BOUNDARY = r"(?:(?<![A-Za-z])|(?![A-Za-z]))"


def expression(lines: str) -> re.Pattern[str]:
    """One that matches any of the lines. No word is found within another: `said:` is not `id`."""
    alternatives = "|".join(lines.replace("\\\n", "").strip().split("\n"))
    spaced = re.sub(r"\.\{0,\d+\}", lambda gap: gap.group() + _BOUNDARY, alternatives)
    return re.compile(f"{_BOUNDARY}(?:{spaced})", re.IGNORECASE)
