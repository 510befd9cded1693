"""The blinded reader study: can readers tell synthetic images from real ones?

| file           | what it does                                                             |
|----------------|--------------------------------------------------------------------------|
| preparation.py | prepares a study from real and synthetic volumes                         |
| frames.py      | the one way in which all images of a study are cut, sampled and windowed |
| cues.py        | warns where one simple figure separates the two kinds                    |
| study.py       | the files of a study: reading list and key                               |
| reading.py     | one reader's answers; goes on where the reader stopped                   |
| page.py        | the reading as a local web page                                          |
| statistics.py  | intervals, d-prime, ROC, kappa                                           |
| scoring.py     | all readers against the key                                              |
| report.py      | the scores as files and pictures                                         |

`study` and `reading` need numpy and SimpleITK only: Slicer uses them in its own Python.
"""
