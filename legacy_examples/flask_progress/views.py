"""Starts trainings, tells how far they are, ends them."""

from flask import Blueprint, jsonify, request, url_for

trainings = Blueprint("trainings", __name__)


@trainings.route("/trainings", methods=["POST"])
def start():
    from tasks import train

    task = train.apply_async(args=[request.form.get("hidden", 64, type=int)])
    return jsonify({"id": task.id}), 202, {"Location": url_for("trainings.status", task_id=task.id)}


@trainings.route("/trainings/<task_id>")
def status(task_id):
    from tasks import train

    # State and result in one look: between two, the training may end.
    meta = train.backend.get_task_meta(task_id)
    state, info = meta["status"], meta["result"]
    if state in ("FAILURE", "REVOKED"):
        return jsonify({"state": state, "error": type(info).__name__, "message": str(info)})
    return jsonify({"state": state, "info": info})


@trainings.route("/trainings/<task_id>", methods=["DELETE"])
def cancel(task_id):
    from tasks import train

    train.AsyncResult(task_id).revoke(terminate=True)
    return "", 204
