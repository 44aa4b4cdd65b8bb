"""What orchestrators say of the work that goes on, for ``kh.context``: workflow, run, step and tool in our words.

    from keyhole.adapters import work

    @activity.defn
    async def charge(amount: int) -> None:
        with kh.context(**work.temporal()):
            kh.call("POST", "https://api.stripe.com/v1/charges", bearer="stripe/api-key")

Each reads what its library says in public of the code that runs, and imports it only then. What they say is a claim of
this program like any other (``core.stated``): the run context of the token stands above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from keyhole.core.errors import InvalidRequest

_MOST = 200  # characters of a name in a record


def temporal() -> dict[str, str]:
    """Within an activity of Temporal: type and run id of the workflow, id of the activity as step, its type as tool.

    An activity that no workflow started is its own run.

    Raises:
        InvalidRequest: ``temporalio`` is not installed, or no activity runs here.
    """
    activity = _library("temporalio.activity", "temporalio")
    if not activity.in_activity():
        raise _elsewhere("an activity of Temporal", "a workflow function makes no calls")
    info = activity.info()
    run = info.workflow_run_id or getattr(info, "activity_run_id", None)
    return _said(info.workflow_type, run, info.activity_id, info.activity_type)


def prefect() -> dict[str, str]:
    """Within a flow of Prefect: its name and the id of its run; within a task of it the task's run as step.

    Raises:
        InvalidRequest: ``prefect`` is not installed, or no flow or task runs here.
    """
    runtime = _library("prefect.runtime", "prefect")
    flow, task = runtime.flow_run, runtime.task_run
    if not (flow.id or task.id):
        raise _elsewhere("a flow of Prefect", "call it from a function with @flow or @task")
    return _said(flow.flow_name, flow.id or task.id, task.name, task.task_name)


def langgraph(config: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Within a node of LangGraph: the graph and the run, where they are named, the node and its step.

    A node learns of its run only what whoever invoked the graph put into ``configurable`` or ``metadata``: ``run_id``,
    or else the ``thread_id``; and ``graph_id``. LangGraph's own server does so.

    Args:
        config: what the node was given, if it was; else that of the code that runs.

    Raises:
        InvalidRequest: ``langgraph`` is not installed, or no graph runs here.
    """
    if config is None:
        library = _library("langgraph.config", "langgraph")
        try:
            config = library.get_config()
        except RuntimeError:
            raise _elsewhere("a node of LangGraph", "hand in the config that the node is given") from None
    given, about = config.get("configurable") or {}, config.get("metadata") or {}
    run = given.get("run_id") or about.get("run_id") or given.get("thread_id")
    workflow = given.get("graph_id") or about.get("graph_id")
    node, number = about.get("langgraph_node"), about.get("langgraph_step")
    return _said(workflow, run, f"{node}/{number}" if node and number is not None else node, node)


def airflow(context: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Within a task of Airflow: id of the DAG, of its run, and of the task, with its index where it is mapped.

    Args:
        context: what the task was given, if it was; else that of the code that runs.

    Raises:
        InvalidRequest: ``airflow`` is not installed, or no task runs here.
    """
    if context is None:
        library = _library("airflow.sdk", "apache-airflow")
        try:
            context = library.get_current_context()
        except RuntimeError:
            raise _elsewhere("a task of Airflow", "hand in the context that the task is given") from None
    task, run = context["ti"], context.get("dag_run")
    index = getattr(task, "map_index", None)
    mapped = isinstance(index, int) and index >= 0
    name = getattr(run, "run_id", None) or task.run_id
    return _said(task.dag_id, name, f"{task.task_id}[{index}]" if mapped else task.task_id, task.task_id)


def _library(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise InvalidRequest(f"the library {package} is not installed here", f"pip install {package}") from None


def _elsewhere(where: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"this code does not run within {where}", hint)


def _said(workflow: object, run: object, step: object, tool: object) -> dict[str, str]:
    """What is known, as a record can hold it."""
    fields = {"workflow": workflow, "run": run, "step": step, "tool": tool}
    texts = {name: "".join(filter(str.isprintable, str(value))) for name, value in fields.items() if value}
    return {name: text[:_MOST] for name, text in texts.items() if text}
