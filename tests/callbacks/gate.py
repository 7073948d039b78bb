"""What a callback must say of a text: UTF-8 (RFC 3629) and XML 1.0's characters, U+FFFD for each byte or character that is none of them.
Written from the standards, apart from the server's own gate."""
import codecs
import re

NOT_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def _replace(error):
    # A surrogate in UTF-8's manner is one character that must not be; any other byte stands for itself.
    three = error.object[error.start:error.start + 3]
    is_surrogate = len(three) == 3 and three[0] == 0xed and 0xa0 <= three[1] <= 0xbf and 0x80 <= three[2] <= 0xbf
    return "\ufffd", error.start + (3 if is_surrogate else 1)


codecs.register_error("gate", _replace)


def passed(data):
    """Bytes of a text as a callback carries them."""
    if data.isalnum():  # ASCII
        return data.decode()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="gate")
    return NOT_XML.sub("\ufffd", text) if NOT_XML.search(text) else text
