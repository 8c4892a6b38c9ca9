"""The check of a data set: every file is examined, judged and told with its repair before it costs a day."""
