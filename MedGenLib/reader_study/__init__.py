"""Blinded reader study: can readers distinguish synthetic from real images?

| file           | what it does                                                             |
|----------------|--------------------------------------------------------------------------|
| preparation.py | prepares a study from real and synthetic volumes                         |
| frames.py      | the common crop, resampling and window of all images of a study          |
| cues.py        | warns if a simple image statistic separates real and synthetic images    |
| study.py       | the files of a study: reading list and key                               |
| reading.py     | one reader's answers; resumes an interrupted reading                     |
| page.py        | the reading as a local web page                                          |
| statistics.py  | intervals, d-prime, ROC, kappa                                           |
| scoring.py     | all readers against the key                                              |
| report.py      | the scores as files and pictures                                         |

`study` and `reading` need numpy and SimpleITK only, for use in Slicer's Python.
"""
