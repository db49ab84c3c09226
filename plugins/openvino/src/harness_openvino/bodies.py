"""What is changed in a graph before OpenVINO reads it: the body of a Scan gets copies of the weights it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def close_bodies(graph: onnx.ModelProto) -> None:
    """Put the weights that the bodies of the graph's `Scan` nodes take from outside into these bodies, in place.

    OpenVINO 2026.4 counts every value that a body takes from outside as a state of the loop, and then refuses the
    graph. Weights that are turned or added first go in with the nodes that do so, and are folded there. What depends on
    the graph's inputs stays outside.
    """
    for node in graph.graph.node:
        if node.op_type == "Scan":
            body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
            _close(body, graph.graph)


def _close(body: onnx.GraphProto, outer: onnx.GraphProto) -> None:
    values = {tensor.name: tensor for tensor in outer.initializer}
    makers = {name: node for node in outer.node for name in node.output}
    inside = {value.name for value in (*body.input, *body.initializer)}
    inside.update(name for node in body.node for name in node.output)
    first: list[onnx.NodeProto] = []

    def is_constant(name: str) -> bool:
        if not name or name in values:
            return True
        maker = makers.get(name)
        if maker is None or any(attribute.g.node for attribute in maker.attribute):
            return False
        return all(is_constant(given) for given in maker.input)

    def bring(name: str) -> None:
        if not name or name in inside:
            return
        if name in values:
            inside.add(name)
            body.initializer.append(values[name])
            return
        for given in makers[name].input:
            bring(given)
        inside.update(makers[name].output)
        first.append(makers[name])

    for node in body.node:
        for name in node.input:
            if name not in inside and is_constant(name):
                bring(name)
    nodes = [*first, *body.node]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del body.node[:]
    body.node.extend(copies)
