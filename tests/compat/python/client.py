"""What programs do with the Python client `etcd3`, against the members that KVD_ENDPOINTS names."""

import os
import threading
import time

import etcd3

ENDPOINTS = os.environ["KVD_ENDPOINTS"].split(",")
PATIENCE = 90.0


def connect(endpoint=ENDPOINTS[0]):
    host, port = endpoint.rsplit(":", 1)
    return etcd3.client(host=host, port=int(port), timeout=10)


def patiently(ask):
    """The client asks one member, once; while the cluster has no leader a program asks again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        for endpoint in ENDPOINTS:
            try:
                return ask(connect(endpoint))
            except (etcd3.exceptions.Etcd3Exception, ValueError):
                assert time.monotonic() < deadline, "no member answers"


def keys_and_values(client):
    client.put("kv/a", "1")
    assert client.get("kv/a")[0] == b"1"
    assert client.get("kv/none") == (None, None)
    for number in range(5):
        client.put(f"kv/n{number}", str(number))
    values = [value for value, _ in client.get_prefix("kv/n", sort_order="descend")]
    assert values == [b"4", b"3", b"2", b"1", b"0"], values
    assert client.replace("kv/a", "1", "2") and not client.replace("kv/a", "1", "3")
    assert client.put_if_not_exists("kv/b", "x") and not client.put_if_not_exists("kv/b", "y")
    assert client.delete_prefix("kv/n").deleted == 5
    assert client.delete("kv/a") and not client.delete("kv/a")


def transactions(client):
    client.put("txn/a", "1")
    done, answers = client.transaction(
        compare=[client.transactions.value("txn/a") == "1", client.transactions.version("txn/a") > 0],
        success=[client.transactions.put("txn/a", "2"), client.transactions.get("txn/a")],
        failure=[client.transactions.delete("txn/a")],
    )
    assert done and answers[1][0][0] == b"2", (done, answers)


def leases_and_locks(client):
    lease = client.lease(30)
    client.put("lease/a", "x", lease=lease)
    assert lease.remaining_ttl <= 30 and lease.keys == [b"lease/a"]
    assert list(lease.refresh())[0].TTL == 30
    lease.revoke()
    assert client.get("lease/a") == (None, None)
    lock = client.lock("lock", ttl=30)
    assert lock.acquire(timeout=10) and lock.is_acquired()
    assert not connect(ENDPOINTS[1]).lock("lock", ttl=30).is_acquired()
    assert lock.release()


def watches(client):
    events, cancel = client.watch_prefix("watch/")
    for number in range(50):
        client.put("watch/a", str(number))
    client.delete("watch/a")
    for number in range(50):
        event = next(events)
        assert isinstance(event, etcd3.events.PutEvent) and event.value == str(number).encode(), event
    assert isinstance(next(events), etcd3.events.DeleteEvent)
    cancel()


def members_and_maintenance(client):
    assert len(list(client.members)) == len(ENDPOINTS)
    status = client.status()
    assert status.version.startswith("3.") and status.leader is not None
    assert list(client.list_alarms()) == []
    last = client.put("maintenance", "x").header.revision
    client.compact(last)
    assert client.hash() is not None
    client.defragment()


def death_of_a_leader(client):
    lease = client.lease(60)
    client.put("death/own", "x", lease=lease)
    begin = client.put("death/begin", "").header.revision
    killed = threading.Event()

    def kill():
        print("kill", flush=True)
        input()
        killed.set()

    acknowledged, number, since = [], 0, 0
    while since < 30:
        if number == 30:
            threading.Thread(target=kill, daemon=True).start()
        answered = killed.is_set()
        # Put again under a key of its own where the answer was lost: the same key, the same value.
        patiently(lambda asked: asked.put(f"death/n{number:05}", str(number)))
        acknowledged.append(str(number).encode())
        number += 1
        since += answered
    survivor = patiently(lambda asked: (asked.get("death/begin"), asked)[1])
    events, cancel = survivor.watch_prefix("death/n", start_revision=begin)
    told = []
    while len(set(told)) < len(acknowledged):
        told.append(next(events).value)
    cancel()
    assert list(dict.fromkeys(told)) == acknowledged, told
    assert patiently(lambda asked: asked.get("death/own"))[0] == b"x", "the lease ended with the leader"


for scenario in (keys_and_values, transactions, leases_and_locks, watches, members_and_maintenance,
                 death_of_a_leader):
    scenario(connect())
    print("passed:", scenario.__name__.replace("_", " "), flush=True)
