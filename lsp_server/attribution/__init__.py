"""Attribution: where the text of a completion stands verbatim, by fingerprints of code that the user has indexed."""
