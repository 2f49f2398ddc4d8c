"""How many tokens per second Flask-Dance's SQLAlchemyStorage reads, as shipped and with an index.

    tests/e2e/.venv/bin/python tests/benches/peer_flask_dance.py [ROWS [SECONDS]]

`tests/run` installs Flask-Dance there. The database is a SQLite file in a temporary folder, with one token per user.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from flask import Flask
from flask_dance.consumer.storage.sqla import OAuthConsumerMixin, SQLAlchemyStorage
from flask_dance.contrib.github import make_github_blueprint
from sqlalchemy import ForeignKey, Integer, create_engine, insert, text
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id = mapped_column(Integer, primary_key=True)


class OAuth(OAuthConsumerMixin, Base):
    user_id = mapped_column(Integer, ForeignKey(User.id))
    user = relationship(User)


def rate(storage, blueprint, users, seconds):
    """Reads tokens of random users one after the other."""
    start, done = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        token = storage.get(blueprint, user_id=random.randint(1, users))
        if len(token["access_token"]) != 900:
            raise SystemExit("it is another token")
        done += 1
    return done / (time.monotonic() - start)


def main():
    users = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{Path(folder) / 'tokens.db'}")
        Base.metadata.create_all(engine)
        token = {"access_token": "x" * 900, "token_type": "bearer"}
        with Session(engine) as session, Flask("bench").app_context():
            session.execute(insert(User), [{"id": user} for user in range(1, users + 1)])
            rows = ({"provider": "github", "token": token, "user_id": user} for user in range(1, users + 1))
            session.execute(insert(OAuth), list(rows))
            session.commit()
            storage = SQLAlchemyStorage(OAuth, session)
            blueprint = make_github_blueprint(client_id="id", client_secret="secret", storage=storage)
            print(f"Flask-Dance on SQLite, {users} rows, gets per second, 1 task")
            print(f"{rate(storage, blueprint, users, seconds):10.0f}  as shipped")
            session.execute(text("CREATE INDEX by_user ON flask_dance_oauth (user_id, provider)"))
            session.commit()
            print(f"{rate(storage, blueprint, users, seconds):10.0f}  with an index")


main()
