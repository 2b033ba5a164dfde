"""The HTTP service: a gallery's verbs for other programs and a web page.

`service` does what is asked, `app` speaks HTTP for it, `gate` refuses what is
not to be read at all. Needs the extra `serve`.
"""
