"""vlmteach: a frozen vision-language teacher makes a frozen video model reason better at test time.

After "VLMs are Good Teachers for Video Reasoning via Adaptive Test-Time Optimization"
(arXiv 2606.02564).
"""

__version__ = "0.1.0"
