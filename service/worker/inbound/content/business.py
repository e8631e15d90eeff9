"""Converts business messages: menus and selections from them, products and orders."""

from collections.abc import Iterable, Iterator
from typing import Any

from service.worker.inbound.content.limits import ADDRESS, BODY, Bounds
from service.worker.inbound.content.reading import Reading
from zap.v1 import content_pb2 as pb

Option = tuple[str | bytes, str | bytes]
"""Id and text."""


def buttons(body: Any, reading: Reading) -> pb.MenuContent:
    """Convert a text with buttons."""
    options = ((button.buttonID, button.buttonText.displayText) for button in body.buttons)
    return _menu(reading.bounds, body.text, body.contentText, body.footerText, options)


def option_list(body: Any, reading: Reading) -> pb.MenuContent:
    """Convert a list of rows in sections."""
    sections = reading.bounds.items(body.sections)
    options = ((row.rowID, row.title) for section in sections for row in section.rows)
    return _menu(reading.bounds, body.title, body.description, body.footerText, options)


def template(body: Any, reading: Reading) -> pb.MenuContent:
    """Convert a filled-in template, a form of message that WhatsApp approves beforehand."""
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
    """Convert the newest form of menu. The actions of its buttons are JSON and stay in the raw bytes."""
    return _menu(reading.bounds, body.header.title, body.body.text, body.footer.text, ())


def button_reply(body: Any, reading: Reading) -> pb.SelectionContent:
    """Convert the selection of a button."""
    return _selection(reading.bounds, body.selectedButtonID, body.selectedDisplayText)


def list_reply(body: Any, reading: Reading) -> pb.SelectionContent:
    """Convert the selection of a row in a list."""
    return _selection(reading.bounds, body.singleSelectReply.selectedRowID, body.title)


def template_reply(body: Any, reading: Reading) -> pb.SelectionContent:
    """Convert the selection of a template's button."""
    return _selection(reading.bounds, body.selectedID, body.selectedDisplayText)


def interactive_reply(body: Any, reading: Reading) -> pb.SelectionContent:
    """Convert a reply to the newest form of menu."""
    flow = body.nativeFlowResponseMessage
    content = _selection(reading.bounds, "", body.body.text)
    content.parameters = reading.bounds.text(flow.paramsJSON, BODY)
    return content


def product(body: Any, reading: Reading) -> pb.ProductContent:
    """Convert a product of a catalogue."""
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
    """Convert an order, without its token."""
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
            pb.MenuOption(id=bounds.text(option_id), text=bounds.text(text))
            for option_id, text in bounds.first(options)
        ],
    )


def _template_options(buttons: Any) -> Iterator[Option]:
    for button in buttons:
        kind = button.WhichOneof("hydratedButton")
        if kind:
            inner = getattr(button, kind)
            yield (inner.ID if kind == "quickReplyButton" else "", inner.displayText)


def _selection(bounds: Bounds, option_id: str, text: str) -> pb.SelectionContent:
    return pb.SelectionContent(id=bounds.text(option_id), text=bounds.text(text, BODY))
