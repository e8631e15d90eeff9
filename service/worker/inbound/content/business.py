"""What businesses send and get back: menus and what was chosen of them, products, orders.

WhatsApp's bodies in, zap.v1's out.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from service.worker.inbound.content.limits import ADDRESS, BODY, Bounds
from service.worker.inbound.content.reading import Reading
from zap.v1 import content_pb2 as pb

Option = tuple[str | bytes, str | bytes]
"""Id and words."""


def buttons(body: Any, reading: Reading) -> pb.MenuContent:
    """A text with buttons."""
    options = ((button.buttonID, button.buttonText.displayText) for button in body.buttons)
    return _menu(reading.bounds, body.text, body.contentText, body.footerText, options)


def option_list(body: Any, reading: Reading) -> pb.MenuContent:
    """A list that opens at a touch."""
    sections = reading.bounds.items(body.sections)
    options = ((row.rowID, row.title) for section in sections for row in section.rows)
    return _menu(reading.bounds, body.title, body.description, body.footerText, options)


def template(body: Any, reading: Reading) -> pb.MenuContent:
    """A message that WhatsApp approved beforehand, filled in."""
    if body.HasField("interactiveMessageTemplate"):
        return interactive(body.interactiveMessageTemplate, reading)
    filled = body.hydratedTemplate if body.HasField("hydratedTemplate") else body.hydratedFourRowTemplate
    return _menu(
        reading.bounds,
        filled.hydratedTitleText,
        filled.hydratedContentText,
        filled.hydratedFooterText,
        _template_options(reading.bounds.items(filled.hydratedButtons)),
    )


def interactive(body: Any, reading: Reading) -> pb.MenuContent:
    """The newest form. What its buttons do is JSON of their own: in the raw bytes."""
    return _menu(reading.bounds, body.header.title, body.body.text, body.footer.text, ())


def button_reply(body: Any, reading: Reading) -> pb.SelectionContent:
    """A button that was touched."""
    return _selection(reading.bounds, body.selectedButtonID, body.selectedDisplayText)


def list_reply(body: Any, reading: Reading) -> pb.SelectionContent:
    """A row of a list."""
    return _selection(reading.bounds, body.singleSelectReply.selectedRowID, body.title)


def template_reply(body: Any, reading: Reading) -> pb.SelectionContent:
    """A button of a template."""
    return _selection(reading.bounds, body.selectedID, body.selectedDisplayText)


def interactive_reply(body: Any, reading: Reading) -> pb.SelectionContent:
    """An answer to the newest form."""
    flow = body.nativeFlowResponseMessage
    content = _selection(reading.bounds, "", body.body.text)
    content.parameters = reading.bounds.text(flow.paramsJSON, BODY)
    return content


def product(body: Any, reading: Reading) -> pb.ProductContent:
    """A product of a catalogue."""
    bounds, product = reading.bounds, body.product
    return pb.ProductContent(
        product_id=bounds.text(product.productID),
        business=bounds.text(body.businessOwnerJID),
        title=bounds.text(product.title),
        description=bounds.text(product.description, BODY),
        currency_code=bounds.text(product.currencyCode),
        price_thousandths=product.priceAmount1000,
        retailer_id=bounds.text(product.retailerID),
        url=bounds.text(product.URL, ADDRESS),
        body=bounds.text(body.body, BODY),
    )


def order(body: Any, reading: Reading) -> pb.OrderContent:
    """An order. Its token is not told."""
    bounds = reading.bounds
    return pb.OrderContent(
        order_id=bounds.text(body.orderID),
        title=bounds.text(body.orderTitle),
        message=bounds.text(body.message, BODY),
        seller=bounds.text(body.sellerJID),
        item_count=body.itemCount,
        currency_code=bounds.text(body.totalCurrencyCode),
        total_thousandths=body.totalAmount1000,
    )


def _menu(bounds: Bounds, title: str, body: str, footer: str, options: Iterable[Option]) -> pb.MenuContent:
    return pb.MenuContent(
        title=bounds.text(title),
        body=bounds.text(body, BODY),
        footer=bounds.text(footer),
        options=[
            pb.MenuOption(id=bounds.text(option_id), text=bounds.text(words))
            for option_id, words in bounds.first(options)
        ],
    )


def _template_options(buttons: Any) -> Iterator[Option]:
    for button in buttons:
        kind = button.WhichOneof("hydratedButton")
        if kind:
            inner = getattr(button, kind)
            yield (inner.ID if kind == "quickReplyButton" else "", inner.displayText)


def _selection(bounds: Bounds, chosen: str, words: str) -> pb.SelectionContent:
    return pb.SelectionContent(id=bounds.text(chosen), text=bounds.text(words, BODY))
