"""Predictions or a model, a data set and metrics become a table for frames, videos and the data set.

`evaluate` in `run` is the way in. `protocol` says what is measured, `sources` where predictions come from,
`truth` what they are compared with; `scoring` scores a video, `crew` does so in several processes, `store`
keeps what is done, and `report` averages it.
"""
