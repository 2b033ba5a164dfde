"""What the service counts, in Prometheus' text format."""

import prometheus_client
from prometheus_client import Counter, Histogram

# From what a search in memory takes to what a large photo takes.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FACES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
  """The counters of one service.

  Attributes:
    requests: answered, by endpoint and status.
    seconds: from a request's head to the end of its answer, by endpoint.
    batches: faces in each call of the device.
    faces: identified, by decision: known, unknown; none for a photo without.
  """

  def __init__(self) -> None:
    """Starts at zero, and reads the process's memory and time too."""
    # When a counter began is told by the start of the process.
    prometheus_client.disable_created_metrics()
    self._registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=self._registry)
    self.requests = Counter(
      "facesiam_requests",
      "Requests answered.",
      ["endpoint", "status"],
      registry=self._registry,
    )
    self.seconds = Histogram(
      "facesiam_request_seconds",
      "Time from a request's head to the end of its answer.",
      ["endpoint"],
      registry=self._registry,
      buckets=_SECONDS,
    )
    self.batches = Histogram(
      "facesiam_batch_faces",
      "Faces in each call of the device.",
      registry=self._registry,
      buckets=_FACES,
    )
    self.faces = Counter(
      "facesiam_faces",
      "Faces identified; none stands for a photo without a face.",
      ["decision"],
      registry=self._registry,
    )

  def text(self) -> tuple[bytes, str]:
    """Returns the exposition and its content type."""
    text = prometheus_client.generate_latest(self._registry)
    return text, prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
