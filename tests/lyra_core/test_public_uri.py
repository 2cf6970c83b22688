"""What of an address may be shown: no signature, no password, and the same text however often it is signed."""

from __future__ import annotations

import pytest

from lyra_core.public_uri import printable, public_uri, without_secrets


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("/photos/a b.jpg", "/photos/a b.jpg"),
        ("photos/what?.jpg", "photos/what?.jpg"),
        ("s3://bucket/x?versionId=3.jpg", "s3://bucket/x?versionId=3.jpg"),
        ("s3://bucket/a#b.jpg", "s3://bucket/a#b.jpg"),
        ("https://host/a.jpg", "https://host/a.jpg"),
        ("https://host/a.jpg?w=1080&id=12", "https://host/a.jpg?w=1080&id=12"),
        ("https://host/a.jpg#access_token=S", "https://host/a.jpg"),
        ("https://user:S@host/a.jpg", "https://host/a.jpg"),
        ("https://S@host/a.jpg", "https://host/a.jpg"),
        ("sftp://user:S@host/a.jpg", "sftp://host/a.jpg"),
        ("abfss://container@account.dfs/a.jpg", "abfss://container@account.dfs/a.jpg"),
        ("https://host/a@b.jpg", "https://host/a@b.jpg"),
        ("https://host?token=S", "https://host"),
        ("https://b.s3.amazonaws.com/a?X-Amz-Credential=S%2F2&X-Amz-Signature=S&X-Amz-Expires=60", "https://b.s3.amazonaws.com/a"),
        ("https://storage.googleapis.com/b/a?GoogleAccessId=S&Expires=1&Signature=S", "https://storage.googleapis.com/b/a"),
        ("https://x.blob.core.windows.net/c/a?sv=1&se=S&sr=b&sp=r&sig=S%3D", "https://x.blob.core.windows.net/c/a"),
        ("https://cdn/a?Policy=S&Signature=S&Key-Pair-Id=S&id=3", "https://cdn/a?id=3"),
        ("https://host/a?id=550e8400-e29b-41d4-a716-446655440000", "https://host/a?id=550e8400-e29b-41d4-a716-446655440000"),
        ("zip://a.jpg::https://user:S@host/x.zip?sig=S", "zip://a.jpg::https://host/x.zip"),
        ("https://host/we::ird.jpg?sig=S", "https://host/we::ird.jpg"),
    ],
)  # fmt: skip
def test_public_form(uri, public):
    assert public_uri(uri) == public
    assert public_uri(public) == public


def test_what_looks_random_is_told_apart_but_not_shown():
    first, second = (public_uri(f"https://host/a.jpg?t={letter * 40}") for letter in "ab")
    assert first != second
    assert "aaaa" not in first


def test_two_signatures_of_one_object_are_one_address():
    signed = "https://host/a.jpg?X-Amz-Date={0}&X-Amz-Signature={0}{0}"
    assert public_uri(signed.format(1)) == public_uri(signed.format(2)) == "https://host/a.jpg"


def test_messages_lose_the_secrets_of_every_url_in_them():
    text = "403, message='Forbidden', url='https://u:S3CRET@host/a.jpg?sig=S3CRET' (see \"s3://b/k.jpg\")"
    assert without_secrets(text) == "403, message='Forbidden', url='https://host/a.jpg' (see \"s3://b/k.jpg\")"


def test_names_that_are_not_utf8_are_spelt_out():
    assert public_uri("/x/caf\udce9.jpg") == "/x/caf\\xe9.jpg"
    assert printable("half \ud800") == "half \\ud800"
    assert public_uri("/x/café.jpg") == "/x/café.jpg"
