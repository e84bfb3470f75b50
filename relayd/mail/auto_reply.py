"""Tell a machine's answer from a person's (RFC 3834), by its header first, by its subject where that says nothing."""

import re
import unicodedata

from relayd.mail import loose_header
from relayd.mail.headers import HeaderScan
from relayd.mail.loose_header import LooseHeader


def _any(phrases: str) -> str:
    text = unicodedata.normalize("NFKC", phrases.replace("\\\n", "").strip())
    return "(?:" + "|".join(text.split("\n")) + ")"


# What names a machine's answer, or says that its writer is away. Data: one or more expressions a line.
_AUTOMATIC = _any(
    r"""
auto(?:matic|mated|matically|mat)?[ -]?(?:generated|re(?:ply|sponse|sponder|spond)|answer|antwort|acknowledge?ment)\
(?: (?:message|e-?mail|reply|mail))?|automatic message|this is an automat(?:ed|ic) (?:reply|response|message)
(?:do not reply to this )?auto-?reply|(?:[^:]{1,60} is )?(?:currently )?out[ -]of[ -](?:the )?office\
(?: (?:auto[ -]?)?(?:reply|response|message|notice|notification))?|ooo\b|oof\b|(?:away|vacation|absence|holiday) \
(?:message|notice|notification|reply|response|auto-?reply|responder)|away from (?:my |the )?(?:office|desk|mail|e-?mail)
i(?: am|'m|’m) (?:currently |now |presently )?(?:away|out|on (?:vacation|holiday|leave|annual leave|parental leave)|\
not in the office|travelling|traveling)|(?:currently )?on (?:annual|sick|parental|maternity|paternity) leave
automatische (?:antwort|abwesenheit\w*|beantwoording|rückmeldung|nachricht|e-?mail)|abwesenheits?\w*|abwesend
(?:[^:]{1,60} (?:ist|bin) )?(?:außer|nicht im|ausser) (?:haus|büro)|ich bin (?:derzeit |zur ?zeit |momentan )?\
(?:im urlaub|nicht (?:da|im (?:büro|haus))|abwesend|verreist|unterwegs)|urlaubs(?:benachrichtigung|meldung|notiz)
[^:]{1,60} est absente?|réponse (?:automatique|d['’]absence)|(?:message|avis|notification) d['’]absence
absente? du bureau|je suis (?:actuellement )?(?:absente?|en (?:congés?|vacances|déplacement))
accusé de réception automatique
respuesta automática|(?:estoy )?fuera de (?:la )?oficina|(?:estoy )?de vacaciones|mensaje automático
ausente de la oficina
resposta automática|(?:estou )?fora do escritório|(?:estou )?de férias|mensagem automática|ausência do escritório
risposta automatica|fuori (?:sede|ufficio)|sono (?:in ferie|fuori ufficio|assente)|messaggio automatico
assenza dall['’]ufficio
automatisch (?:antwoord|bericht)|afwezig(?:heid\w*)?|niet aanwezig|(?:ik ben )?(?:niet op|buiten) kantoor
ik ben (?:met vakantie|op vakantie|afwezig)
autosvar|automatiskt? (?:svar|meddelande|melding|besked|epost\w*)|frånvarande|frånvaro(?:meddelande
besked|notis|anmälan)?
ej på kontoret
jag är (?:på semester|frånvarande|ledig|bortrest|inte på kontoret|föräldraledig)|(?:borta|inte) (?:från|på) kontoret
semester(?:stängt|meddelande|hälsning)
fraværs?(?:besked|melding|assistent)?|jeg (?:er|har) (?:på )?(?:ferie|fraværende|bortreist|ikke på kontoret)
ikke (?:til stede|på kontoret)
automaattinen (?:vastaus|viesti)|poissa(?:olo\w*)?|olen (?:lomalla|poissa)|sjálfvirkt svar|fjarvera
(?:odpowiedź )?automatyczna(?: odpowiedź)?|autoodpowiedź|poza biurem|jestem (?:na urlopie|poza biurem|nieobecn[ya])
nieobecność w (?:biurze|pracy)
automatick[áé] odpov\w*|mimo kancelář|jsem na dovolené|nepřítomnost|som na dovolenke|neprítomnosť|mimo kancelárie
automatikus (?:válasz|üzenet)|(?:házon|irodán) kívül|szabadságon vagyok|răspuns automat|în afara biroului
sunt în concediu
samodejni odgovor|automatski odgovor|odsutnost|odsoten|izvan ureda|na odmoru|аутоматски одговор|ван канцеларије
автоответ\w*|автоматическ(?:ий|ое|ая) (?:ответ|сообщение|уведомление)|вне офиса|(?:я )?(?:нахожусь )?в отпуске
отсутствую|нет на месте
автоматична відповідь|автовідповідь|(?:я )?у відпустці|поза офісом|автоматичен отговор|(?:аз съм )?в отпуск|извън офиса
αυτόματη απάντηση|εκτός γραφείου|(?:είμαι )?σε (?:άδεια|διακοπές)|απουσία από το γραφείο
otomatik (?:yanıt|cevap|mesaj)|ofis dışında\w*|izindeyim|tatildeyim|(?:yıllık )?izinde
رد (?:تلقائي|آلي|الي|أوتوماتيكي)|الرد (?:التلقائي|الآلي)|رسالة (?:تلقائية|آلية)|خارج (?:المكتب|مكتبي)
(?:أنا |انا )?(?:في|ب) ?إجازة(?: حالي[اً]*)?|إشعار (?:غياب|عدم التواجد)
תשובה אוטומטית|מענה אוטומטי|הודעה אוטומטית|מחוץ למשרד|(?:אני )?(?:נמצאת? )?(?:בחופשה|בחופש)|הודעת היעדרות|לא במשרד
پاسخ (?:خودکار|اتوماتیک)|خارج از (?:دفتر|محل کار)|در مرخصی|स्वचालित उत्तर|स्वतः उत्तर|कार्यालय से बाहर|छुट्टी पर
(?:การ)?ตอบกลับ(?:โดย)?อัตโนมัติ|ข้อความอัตโนมัติ|ตอบรับอัตโนมัติ|ไม่อยู่(?:ที่|ใน)?(?:สำนักงาน|ออฟฟิศ)
(?:อยู่ระหว่าง|อยู่ในช่วง)?(?:ลาพักร้อน|ลาพักผ่อน|ลาหยุด)|แจ้งไม่อยู่
(?:thư |tin nhắn |email )?trả lời tự động|tự động trả lời|phản hồi tự động|thư tự động|vắng mặt(?: tại văn phòng)?
(?:tôi )?(?:đang |hiện )?(?:nghỉ phép|đi nghỉ|đi vắng)|không có mặt (?:tại|ở) văn phòng|ngoài văn phòng
balasan otomatis|jawapan automatik|di luar kantor|(?:saya )?sedang cuti|tidak di kantor|automaatvastus|kontorist väljas
automātiskā atbilde|automatinis atsak\w*|neesmu birojā|resposta automàtica|fora de l['’]oficina
自动(?:回复|答复|应答)|自動(?:回覆|応答|返信|回信)(?:メール)?|(?:外出|休假|度假|不在)(?:办公室|通知|中|のお知らせ|自動応答)|休暇中|不在(?:通知|にしております)?|我正在休假|(?:我)?不在办公室
자동 ?(?:회신|응답|답장)|부재 ?중(?: ?알림)?|휴가 ?중|사무실 ?부재
"""
)
# Machines confirm receipt by these; apps send mail with such subjects, too, which a person may answer.
_RECEIVED = _any(
    r"""
(?:automatische )?eingangsbest(?:ä|ae)tigung|empfangsbest(?:ä|ae)tigung|bestätigung (?:des|ihres) eingangs
(?:acknowledge?ment|confirmation) of receipt
accusé de r[eé]ception|acuse de recibo|aviso de recep[cç]i[oó]n|conferma di (?:ricezione|ricevimento)
aviso de recebimento|confirmação de recebimento
ontvangstbevestiging|mottagningsbekräftelse|(?:bekräftelse på )?mottage[nt] (?:mail|e-?post)|kvittering for modtagelse
modtagelsesbekræftelse|bekreftelse på mottak
vastaanottovahvistus|potwierdzenie (?:otrzymania|odbioru)|potvrzení (?:přijetí|o přijetí|doručení)
potvrdenie o prijatí|visszaigazolás|confirmare de primire
подтверждение (?:получения|о получении)|ваше (?:письмо|обращение) (?:получено|принято)|підтвердження отримання
επιβεβαίωση (?:παραλαβής|λήψης)|alındı (?:onayı|bildirimi)
(?:تأكيد|إشعار) (?:ال)?استلام|אישור קבלה|ยืนยันการรับ|ได้รับ(?:อีเมล|ข้อความ)ของคุณแล้ว|xác nhận đã nhận|受信確認|受付完了
お問い合わせを受け付け|收件确认|已收到您的(?:邮件|来信)|수신 ?확인|접수 ?확인
"""
)
# Words that an automatic answer begins with. Behind `Re:` they are the subject of what was sent.
_OPENING = _any(
    r"""
vacation|annual leave|away from|on leave|urlaub|en congé|in ferie|niet aanwezig
i am (?:currently )?(?:away|out)|absence|abwesen|assen(?:te|za)\b|auto:
(?:semester|ferie|ferien|férias|vacaciones|vacances)\b
"""
)
_RE = (
    r"(?:re|aw|sv|vs|tr|rv|ref|antw|antwort|odp|res|r|ynt|ang|ad|vá|bls|atb|fwd?|wg|rép|réf|ответ|отв|відп|απ|σχετ|"
    + unicodedata.normalize("NFKC", r"رد|תגובה|תשובה|ตอบกลับ|ตอบ|trả lời|回复|回覆|答复|返信|답장|회신)")
)
_PREFIX = re.compile(rf"\s*{_RE}\s?(?:\[\d{{1,3}}\]|\(\d{{1,3}}\)|\^\d{{1,3}})?\s?:\s*", re.IGNORECASE)
_TAG = re.compile(
    r"\s*(?:\[([^\[\]]{1,60})\]|\(([^()]{1,60})\)|【([^【】]{1,60})】|<([^<>]{1,60})>|\*{2,3}([^*]{1,60})\*{2,3})\s*[:-]?\s*"
)
# The end of a phrase that stands behind a prefix: the rest of the subject is another sentence, or a time.
_END = (
    r"(?=\s*(?:\Z|[:;,.!?(\[\-–—/|]|\d|(?:until|till|from|since|through|thru|bis|vom|ab|seit|jusqu|du|hasta|desde|"
    r"até|fino|dal|tot|van|till|fram|från|fra|til|do|od|до|с|по|حتى|עד|จนถึง|đến|från och med|to)\b))"
)
_WORD_END = r"(?![A-Za-z\u00c0-\u024f\u0370-\u052f])"
_STATES = re.compile(rf"(?:{_AUTOMATIC}|{_RECEIVED}){_WORD_END}|{_OPENING}", re.IGNORECASE)
_STATES_BEHIND_PREFIX = re.compile(rf"{_AUTOMATIC}{_END}|{_RECEIVED}\s*\Z", re.IGNORECASE)
_IS_AUTOMATIC = re.compile(rf"(?:{_AUTOMATIC}|{_RECEIVED}|automat(?:ed|ic)|auto)\s*\Z", re.IGNORECASE)
_RECEIPT = re.compile(
    r"(?i)\A.{0,200}?"
    r"(?:(?:ticket|case|request)\b.{0,30}(?:received|created|opened)|"
    r"(?:we have|we've) received your|read receipt)|\A\s*(?:read|gelesen|lu|leído|letto|lida|gelezen):"
)
_FORMAT = re.compile("[\u200b-\u200f\u061c\u202a-\u202e\u2060-\u2069\ufeff]")
MAX_LAYERS = 12  # of prefixes and tags before the words of a subject


def is_auto_reply(header: LooseHeader) -> bool:
    """Whether no person wrote this answer. What a mailing list adds to a person's answer does not count."""
    submitted = header.first("auto-submitted").strip().lower()
    if submitted and not submitted.startswith("no"):
        return True
    if any(header.first(name) for name in ("x-autoreply", "x-autorespond", "x-autoresponder", "x-auto-reply-from",
                                           "x-autoreply-from", "x-mail-autoreply", "x-vacation")):  # fmt: skip
        return True
    precedence = header.first("precedence").strip().lower()
    if precedence in ("auto_reply", "auto-reply", "junk"):
        return True
    # Some mailing lists give it to what people write to them.
    if precedence == "bulk" and not (header.first("list-id") or header.first("list-post")):
        return True
    content_type = header.first("content-type").lower()
    if "disposition-notification" in content_type or header.first("x-ms-exchange-generated-message-source"):
        return True
    return says_automatic(header.decoded("subject"))


def says_automatic(subject: str) -> bool:
    """Whether a subject is one that a machine gives to its answer."""
    rest = unicodedata.normalize("NFKC", _FORMAT.sub("", subject)).strip()
    is_behind_prefix = False
    for _ in range(MAX_LAYERS):
        if tag := _TAG.match(rest):
            name = next(each for each in tag.groups() if each is not None)
            if _IS_AUTOMATIC.match(name.strip()):
                return True
            rest = rest[tag.end() :]
        elif (_STATES_BEHIND_PREFIX if is_behind_prefix else _STATES).match(rest):
            return True
        elif prefix := _PREFIX.match(rest):
            is_behind_prefix = True
            rest = rest[prefix.end() :]
        else:
            break
    return not is_behind_prefix and _RECEIPT.search(rest) is not None


def answers(subject: str) -> bool:
    """Whether a subject begins as that of an answer or a forward does."""
    return _PREFIX.match(unicodedata.normalize("NFKC", _FORMAT.sub("", subject))) is not None


def is_read_receipt(scan: HeaderScan) -> bool:
    """Whether the whole message is a message disposition notification (RFC 8098 3)."""
    fields = scan.all(b"Content-Type")
    if len(fields) != 1:
        return False
    content_type, parameters = loose_header.parameters(fields[0].value.decode("latin-1"))
    return (
        content_type == "multipart/report" and parameters.get("report-type", "").lower() == "disposition-notification"
    )
