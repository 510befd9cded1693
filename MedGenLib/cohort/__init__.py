"""Cohorts: thousands of cases of one manifest, each done once, whatever stops in between.

| file in the output folder | content                                                                         |
|---------------------------|---------------------------------------------------------------------------------|
| cohort.json               | the name of the cohort, so that another one does not use the folder             |
| cases/ID/                 | the outputs of a case, its log.txt and, written last, its record.json           |
| report.html, cases.csv    | failures, checks, thumbnails, seconds and memory of all cases                   |
| dataset/                  | images with labels in nnU-Net's layout, where the manifest asks for them        |

A case is computed in a hidden folder that takes the place of `cases/ID` when it is complete.
"""
