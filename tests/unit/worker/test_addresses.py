import pytest

from service.worker.addresses import NoAddress, from_text, person_to_text, to_text


@pytest.mark.parametrize(
    "text",
    ["49170@s.whatsapp.net", "49170:12@s.whatsapp.net", "111.1:3@lid", "1203630-16@g.us", "s.whatsapp.net"],
)
def test_addresses_come_back_as_they_were(text: str) -> None:
    jid = from_text(text if "@" in text else f"@{text}")
    assert to_text(jid) == text


def test_a_person_has_no_device() -> None:
    assert person_to_text(from_text("49170:12@s.whatsapp.net")) == "49170@s.whatsapp.net"


@pytest.mark.parametrize("text", ["", "49170", "a@b@c", "1:x@lid", "49170@", "49170@UPPER", "49170 @s.whatsapp.net\n"])
def test_what_is_no_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(NoAddress) as error:
        from_text(text)
    assert "49170" not in str(error.value)
