"""The scanner: finds leaked keys in files, histories, images and logs.  It needs no server and only the base install.

    source -> document -> opened contents -> decoded layers -> engine -> detections -> findings -> report

    ruleset      what a key looks like: our rules as data, and rule files of gitleaks
      model, load, samples, checksums, gitleaks
    engine       where in some bytes a rule matches: hyperscan finds, RE2 confirms in a small window
    contents     what a file holds: archives, images, notebooks, compiled Python, UTF-16, logs; in memory, within bounds
    decoding     what a text hides: base64, hex, percent, JSON and unicode escapes, gzip inside base64
    sources      where documents come from: folders, standard input, the history, index and work tree of git
    examination  one document through contents, decoding and engine
    running      a source through all of that, spread over processes, with progress
    fingerprints, ignores, baseline     findings that were judged before, recognised by their content
    context, policy                     where a key stands, and whether it may stand there
    reporting    the same findings as text, JSON, SARIF, JUnit, CSV and annotations
    hooks        git hooks: installed, and what they run
    cache        what a later run need not do again: the compiled rules, the blobs that were scanned
    matching     digests of candidates, by which a server tells whose they are
    watching     repositories and folders on a schedule

A secret is held in `keyturn.kernel.secret.Secret` and leaves the scanner only when asked for in so many words.
A bound that was hit and a file that could not be read are reported, never passed over.
"""
