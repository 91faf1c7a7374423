"""`flagstream spec asyncapi`: what leaves an agent and what it takes, as AsyncAPI has it, from the code."""

from __future__ import annotations

from typing import Any

from schemas.alert import ALERT_VERSION
from schemas.alert_documents import alert_json_schema
from schemas.label import label_json_schema
from streaming.kafka.outbox_record import AGENT_HEADER, REPLAY_HEADER, SEQUENCE_HEADER
from streaming.notify.notices import RAISED, REVISED
from streaming.notify.signing import ID_HEADER, SIGNATURE_HEADER, TIME_HEADER
from streaming.observe.traces import TRACEPARENT
from streaming.output.terminal import print_json

_KAFKA_BINDING = "0.5.0"
_TRACE_FORM = "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"


def show_asyncapi() -> None:
    """Print the document."""
    print_json(asyncapi_document(), indent=2)


def asyncapi_document() -> dict[str, Any]:
    """Return the AsyncAPI 3 document of alerts, which leave an agent, and labels, which it may take."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "flagstream",
            "version": f"{ALERT_VERSION}.0.0",
            "description": "Alerts of an agent and labels for it. The agent's spec names the topics.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "alerts": _channel("alerts", "alerts.topic", "alert"),
            "labels": _channel("labels", "data_sources.labels.topic", "label"),
            "webhooks": _webhooks(),
        },
        "operations": {
            "publishAlert": _operation("send", "alerts", "alert", "Each revision once, in order."),
            "postAlert": _operation(
                "send", "webhooks", "webhookAlert", "At least once, under one `webhook-id`."
            ),
            "takeLabel": _operation("receive", "labels", "label", "What is known of a transaction."),
        },
        "components": _components(),
    }


def _components() -> dict[str, Any]:
    return {
        "schemas": {"alert": _payload(alert_json_schema()), "label": _payload(label_json_schema())},
        "messages": {
            "alert": _alert_message(),
            "label": _label_message(),
            "webhookAlert": _webhook_message(),
        },
    }


def _channel(address: str, key: str, message: str) -> dict[str, Any]:
    return {
        "address": address,
        "description": f"A Kafka topic; `{key}` of the spec names it.",
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "bindings": {"kafka": {"topic": address, "bindingVersion": _KAFKA_BINDING}},
    }


def _webhooks() -> dict[str, Any]:
    return {
        "address": None,
        "description": "Addresses that the routes file of `flagstream notify` names; requests are POSTs.",
        "messages": {"webhookAlert": {"$ref": "#/components/messages/webhookAlert"}},
    }


def _operation(action: str, channel: str, message: str, summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
    }


def _alert_message() -> dict[str, Any]:
    return {
        "name": "alert",
        "title": "Alert",
        "summary": "A flagged transaction. A higher `revision` of an `alert_id` replaces lower ones.",
        "contentType": "application/json",
        "headers": _alert_headers(),
        "payload": {"$ref": "#/components/schemas/alert"},
        "bindings": _keyed("the transaction's id, so that revisions of an alert stay in order"),
    }


def _alert_headers() -> dict[str, Any]:
    return {
        "type": "object",
        "required": [AGENT_HEADER, SEQUENCE_HEADER],
        "properties": {
            AGENT_HEADER: {"type": "string", "description": "name of the agent"},
            SEQUENCE_HEADER: {
                "type": "string",
                "pattern": "^[0-9]+$",
                "description": "the agent's gapless count of what it has sent",
            },
            REPLAY_HEADER: {"type": "string", "description": "sent once more, by `flagstream resend`"},
            TRACEPARENT: {
                "type": "string",
                "pattern": _TRACE_FORM,
                "description": "W3C trace context of the batch, where the agent makes traces",
            },
        },
    }


def _label_message() -> dict[str, Any]:
    return {
        "name": "label",
        "title": "Label",
        "summary": "Whether a transaction is a fraud; of several on one transaction the last decided counts.",
        "contentType": "application/json",
        "payload": {"$ref": "#/components/schemas/label"},
    }


def _webhook_message() -> dict[str, Any]:
    texts = {
        ID_HEADER: "idempotency key: the same for every attempt",
        TIME_HEADER: "when this attempt was made, in seconds since 1970",
        SIGNATURE_HEADER: "for each live secret `v1,` and a signature, as Standard Webhooks has it",
    }
    return {
        "name": "webhookAlert",
        "title": "Alert, as webhooks get it",
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "required": [*texts],
            "properties": {name: {"type": "string", "description": said} for name, said in texts.items()},
        },
        "payload": {
            "type": "object",
            "additionalProperties": False,
            "required": ["type", "timestamp", "data"],
            "properties": {
                "type": {"type": "string", "enum": [RAISED, REVISED]},
                "timestamp": {"type": "string", "format": "date-time"},
                "data": {"$ref": "#/components/schemas/alert"},
            },
        },
    }


def _keyed(meaning: str) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": meaning}, "bindingVersion": _KAFKA_BINDING}}


def _payload(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON Schema as AsyncAPI has it, which is said in its own words where it is another draft."""
    return {name: value for name, value in schema.items() if name != "$schema"}
