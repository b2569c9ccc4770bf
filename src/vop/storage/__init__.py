"""Files by location: local paths, and objects in S3, Google Cloud Storage and Azure Blob Storage by address.

    address.py        what a location is
    objects.py        what can be done with an object
    small_files.py    the same calls for small files in a folder and below a prefix
    scratch.py        local copies of objects, in bounded space
    errors.py         why it failed

The extra `objects` installs the clients. They are imported when the first object is used.
"""
