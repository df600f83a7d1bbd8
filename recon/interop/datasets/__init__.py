"""Files of curated data sets: questions with true answers about photos, and the layouts that they are made from."""
