"""What people read of a run or a sweep, made from the files in its folder alone: report.html and MODEL_CARD.md."""
