"""Logs users in with the real Flask-Dance, which stores their tokens with its SQLAlchemyStorage.

The argument is JSON: `database` (for SQLAlchemy), `provider` (the address of a test provider), `client` (id and secret),
`users` (numbers). Prints, as JSON, what the API answers to each user through Flask-Dance.
"""

import json
import os
import sys

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # the provider is on this machine

import requests
from flask import Flask
from flask_dance.consumer import OAuth2ConsumerBlueprint
from flask_dance.consumer.storage.sqla import OAuthConsumerMixin, SQLAlchemyStorage
from sqlalchemy import Integer, Column, create_engine
from sqlalchemy.orm import declarative_base, scoped_session, sessionmaker

settings = json.loads(sys.argv[1])
Base = declarative_base()


class OAuth(OAuthConsumerMixin, Base):
    user_id = Column(Integer)


engine = create_engine(settings["database"])
Base.metadata.create_all(engine)
session = scoped_session(sessionmaker(bind=engine))


def log_in(user):
    """The dance of one user, as a browser sees it."""
    at = settings["provider"]
    blueprint = OAuth2ConsumerBlueprint(
        "acme",
        __name__,
        client_id=settings["client"][0],
        client_secret=settings["client"][1],
        base_url=at,
        authorization_url=at + "/authorize",
        token_url=at + "/token",
        authorization_url_params={"login_hint": f"user {user}"},
        use_pkce=True,
        storage=SQLAlchemyStorage(OAuth, session, user_id=user),
    )
    app = Flask(__name__)
    app.secret_key = "for the session of this test"
    app.register_blueprint(blueprint, url_prefix="/login")
    browser = app.test_client()
    there = browser.get("/login/acme").headers["Location"]
    back = requests.get(there, allow_redirects=False).headers["Location"]
    assert browser.get(back.split("localhost", 1)[1]).status_code == 302
    with app.test_request_context():
        return blueprint.session.get("/userinfo").json()["sub"]


print(json.dumps({str(user): log_in(user) for user in settings["users"]}))
