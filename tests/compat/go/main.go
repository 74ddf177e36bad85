// What programs do with etcd's own Go client, against the members that KVD_ENDPOINTS names.
// Asks whoever started it to kill the leader: `kill` on stdout, an empty line on stdin when done.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

const patience = 90 * time.Second

var endpoints = strings.Split(os.Getenv("KVD_ENDPOINTS"), ",")

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func check(holds bool, format string, values ...any) {
	if !holds {
		panic(fmt.Sprintf(format, values...))
	}
}

func connect(to ...string) *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: to, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	must(err)
	return client
}

func keysAndValues(ctx context.Context, c *clientv3.Client) {
	put, err := c.Put(ctx, "kv/a", "1")
	must(err)
	before, err := c.Put(ctx, "kv/a", "2", clientv3.WithPrevKV())
	must(err)
	check(string(before.PrevKv.Value) == "1", "previous value %q", before.PrevKv.Value)
	old, err := c.Get(ctx, "kv/a", clientv3.WithRev(put.Header.Revision))
	must(err)
	check(string(old.Kvs[0].Value) == "1", "value of the past %q", old.Kvs[0].Value)
	for i := range 10 {
		_, err = c.Put(ctx, fmt.Sprintf("kv/n%d", i), strconv.Itoa(i))
		must(err)
	}
	page, err := c.Get(ctx, "kv/n", clientv3.WithPrefix(), clientv3.WithLimit(3),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	must(err)
	check(page.More && page.Count == 10 && string(page.Kvs[0].Key) == "kv/n9", "page %v", page)
	gone, err := c.Delete(ctx, "kv/n", clientv3.WithPrefix())
	must(err)
	check(gone.Deleted == 10, "deleted %d", gone.Deleted)
}

func transactions(ctx context.Context, c *clientv3.Client) {
	create := func() *clientv3.TxnResponse {
		answer, err := c.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision("txn/a"), "=", 0)).
			Then(clientv3.OpPut("txn/a", "made"), clientv3.OpGet("txn/a")).
			Else(clientv3.OpGet("txn/a")).Commit()
		must(err)
		return answer
	}
	check(create().Succeeded, "the first creation failed")
	second := create()
	check(!second.Succeeded, "it was created twice")
	check(string(second.Responses[0].GetResponseRange().Kvs[0].Value) == "made", "%v", second)
	_, err := c.Txn(ctx).Then(clientv3.OpPut("txn/x", "1"), clientv3.OpPut("txn/x", "2")).Commit()
	check(errors.Is(err, rpctypes.ErrDuplicateKey), "two puts of a key: %v", err)
}

func compaction(ctx context.Context, c *clientv3.Client) {
	first, err := c.Put(ctx, "compact/a", "1")
	must(err)
	last, err := c.Put(ctx, "compact/a", "2")
	must(err)
	_, err = c.Compact(ctx, last.Header.Revision, clientv3.WithCompactPhysical())
	must(err)
	_, err = c.Get(ctx, "compact/a", clientv3.WithRev(first.Header.Revision))
	check(errors.Is(err, rpctypes.ErrCompacted), "a read of what is compacted: %v", err)
	_, err = c.Get(ctx, "compact/a", clientv3.WithRev(last.Header.Revision+1000))
	check(errors.Is(err, rpctypes.ErrFutureRev), "a read of the future: %v", err)
	told := <-c.Watch(ctx, "compact/a", clientv3.WithRev(first.Header.Revision))
	check(told.CompactRevision == last.Header.Revision && errors.Is(told.Err(), rpctypes.ErrCompacted),
		"a watch of what is compacted: %v %v", told, told.Err())
}

func leases(ctx context.Context, c *clientv3.Client) {
	granted, err := c.Grant(ctx, 30)
	must(err)
	_, err = c.Put(ctx, "lease/a", "x", clientv3.WithLease(granted.ID))
	must(err)
	renewing, err := c.KeepAlive(ctx, granted.ID)
	must(err)
	check((<-renewing).TTL == 30, "a renewal gives another TTL")
	left, err := c.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	must(err)
	check(left.TTL > 0 && len(left.Keys) == 1 && string(left.Keys[0]) == "lease/a", "%v", left)
	_, err = c.Revoke(ctx, granted.ID)
	must(err)
	found, err := c.Get(ctx, "lease/a")
	must(err)
	check(len(found.Kvs) == 0, "a key outlived its lease")
	_, err = c.KeepAliveOnce(ctx, granted.ID)
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "a renewal of what is revoked: %v", err)
	_, err = c.Put(ctx, "lease/b", "x", clientv3.WithLease(granted.ID))
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "a put to what is revoked: %v", err)
}

func watches(ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	put, err := c.Put(ctx, "watch/a", "0")
	must(err)
	told := c.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithRev(put.Header.Revision),
		clientv3.WithPrevKV())
	for i := 1; i < 100; i++ {
		_, err = c.Put(ctx, "watch/a", strconv.Itoa(i))
		must(err)
	}
	_, err = c.Delete(ctx, "watch/a")
	must(err)
	for want := 0; want <= 100; {
		news := <-told
		must(news.Err())
		for _, event := range news.Events {
			if want < 100 {
				check(string(event.Kv.Value) == strconv.Itoa(want), "event %d is %v", want, event)
			} else {
				check(event.Type == clientv3.EventTypeDelete && string(event.PrevKv.Value) == "99",
					"the deletion is %v", event)
			}
			want++
		}
	}
	last, err := c.Get(ctx, "watch/a")
	must(err)
	for reached := false; !reached; {
		must(c.RequestProgress(ctx))
		select {
		case news := <-told:
			reached = news.IsProgressNotify() && news.Header.Revision >= last.Header.Revision
		case <-time.After(time.Second):
		}
	}
}

func mutexes(ctx context.Context, c *clientv3.Client) {
	var sessions []*concurrency.Session
	var locks []*concurrency.Mutex
	for range 3 {
		session, err := concurrency.NewSession(c, concurrency.WithTTL(30))
		must(err)
		sessions = append(sessions, session)
		locks = append(locks, concurrency.NewMutex(session, "mutex"))
	}
	must(locks[0].Lock(ctx))
	check(errors.Is(locks[1].TryLock(ctx), concurrency.ErrLocked), "the lock was taken twice")
	var order []int
	var held sync.WaitGroup
	for i := 1; i < 3; i++ {
		held.Add(1)
		go func() {
			defer held.Done()
			must(locks[i].Lock(ctx))
			order = append(order, i)
			must(locks[i].Unlock(ctx))
		}()
		for {
			places, err := c.Get(ctx, "mutex/", clientv3.WithPrefix(), clientv3.WithCountOnly())
			must(err)
			if places.Count == int64(i)+1 {
				break
			}
		}
	}
	must(sessions[0].Close())
	held.Wait()
	check(len(order) == 2 && order[0] == 1 && order[1] == 2, "the order is %v", order)
}

func elections(ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	session := func() *concurrency.Session {
		made, err := concurrency.NewSession(c, concurrency.WithTTL(30))
		must(err)
		return made
	}
	first := concurrency.NewElection(session(), "election")
	second := concurrency.NewElection(session(), "election")
	_, err := first.Leader(ctx)
	check(errors.Is(err, concurrency.ErrElectionNoLeader), "a leader before the election: %v", err)
	told := first.Observe(ctx)
	heard := func(want string) {
		news := <-told
		check(string(news.Kvs[0].Value) == want, "heard %q, not %q", news.Kvs[0].Value, want)
	}
	must(first.Campaign(ctx, "one"))
	heard("one")
	must(first.Proclaim(ctx, "one again"))
	heard("one again")
	won := make(chan error)
	go func() { won <- second.Campaign(ctx, "two") }()
	must(first.Resign(ctx))
	must(<-won)
	heard("two")
	check(errors.Is(first.Proclaim(ctx, "x"), concurrency.ErrElectionNotLeader), "two leaders")
}

// At one member: the snapshot is read serializably from whoever is next in turn, and a member that
// has not heard of its revision refuses it, kvd's as etcd's.
func softwareTransactions(ctx context.Context, _ *clientv3.Client) {
	c := connect(endpoints[0])
	defer c.Close()
	const workers, rounds = 8, 10
	var done sync.WaitGroup
	for range workers {
		done.Add(1)
		go func() {
			defer done.Done()
			for range rounds {
				_, err := concurrency.NewSTM(c, func(stm concurrency.STM) error {
					from, _ := strconv.Atoi(stm.Get("stm/from"))
					to, _ := strconv.Atoi(stm.Get("stm/to"))
					stm.Put("stm/from", strconv.Itoa(from-1))
					stm.Put("stm/to", strconv.Itoa(to+1))
					return nil
				}, concurrency.WithAbortContext(ctx), concurrency.WithIsolation(concurrency.SerializableSnapshot))
				must(err)
			}
		}()
	}
	done.Wait()
	for key, want := range map[string]int{"stm/from": -workers * rounds, "stm/to": workers * rounds} {
		found, err := c.Get(ctx, key)
		must(err)
		check(string(found.Kvs[0].Value) == strconv.Itoa(want), "%s is %s", key, found.Kvs[0].Value)
	}
}

func membersAndMaintenance(ctx context.Context, c *clientv3.Client) {
	members, err := c.MemberList(ctx)
	must(err)
	check(len(members.Members) == len(endpoints), "%v", members)
	put, err := c.Put(ctx, "maintenance", "x")
	must(err)
	hashes := map[uint32]bool{}
	leaders := map[uint64]bool{}
	for _, endpoint := range endpoints {
		_, err = c.Get(ctx, "maintenance")
		must(err)
		status, err := c.Status(ctx, endpoint)
		must(err)
		check(strings.HasPrefix(status.Version, "3.") && status.DbSize > 0, "%v", status)
		leaders[status.Leader] = true
		for {
			hash, err := c.HashKV(ctx, endpoint, put.Header.Revision)
			if errors.Is(err, rpctypes.ErrFutureRev) {
				continue // This member has not heard of it yet.
			}
			must(err)
			hashes[hash.Hash] = true
			break
		}
		_, err = c.Defragment(ctx, endpoint)
		must(err)
	}
	check(len(hashes) == 1 && len(leaders) == 1, "hashes %v, leaders %v", hashes, leaders)
	alarms, err := c.AlarmList(ctx)
	must(err)
	check(len(alarms.Alarms) == 0, "%v", alarms)
}

// A session keeps its lock and a watcher misses nothing while the leader dies. A put of which nobody
// knows whether it was made is looked for in what the watcher heard: it may be there, once.
func deathOfALeader(ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	session, err := concurrency.NewSession(c, concurrency.WithTTL(20))
	must(err)
	lock := concurrency.NewMutex(session, "death/lock")
	must(lock.Lock(ctx))
	begin, err := c.Put(ctx, "death/begin", "")
	must(err)
	told := c.Watch(clientv3.WithRequireLeader(ctx), "death/n", clientv3.WithRev(begin.Header.Revision))

	const before, after = 50, 50
	acknowledged := map[int]bool{}
	killed := make(chan struct{})
	last := 0
	for n, since := 0, 0; since < after; n++ {
		if n == before {
			go func() {
				fmt.Println("kill")
				_, err := bufio.NewReader(os.Stdin).ReadString('\n')
				must(err)
				close(killed)
			}()
		}
		try, stop := context.WithTimeout(ctx, 5*time.Second)
		_, err := c.Put(try, "death/n", strconv.Itoa(n))
		stop()
		must(ctx.Err())
		acknowledged[n] = err == nil
		last = n
		select {
		case <-killed:
			if err == nil {
				since++
			}
		default:
		}
	}
	heard := -1
	for heard < last {
		news, open := <-told
		if !open || news.Err() != nil {
			// clientv3 goes on by itself, but for a loss of the leader, which it was asked to tell of.
			check(ctx.Err() == nil && (!open || errors.Is(news.Err(), rpctypes.ErrNoLeader)),
				"the watch ended: %v", news.Err())
			found, err := c.Get(ctx, "death/begin")
			must(err)
			check(found.Count == 1, "the past is gone")
			told = c.Watch(ctx, "death/n", clientv3.WithRev(begin.Header.Revision+1))
			continue
		}
		for _, event := range news.Events {
			n, err := strconv.Atoi(string(event.Kv.Value))
			must(err)
			check(n > heard, "%d came after %d", n, heard)
			for skipped := heard + 1; skipped < n; skipped++ {
				check(!acknowledged[skipped], "%d was acknowledged and not heard of", skipped)
			}
			heard = n
			begin.Header.Revision = event.Kv.ModRevision
		}
	}
	select {
	case <-session.Done():
		panic("the session ended with the leader")
	default:
	}
	own, err := c.Txn(ctx).If(lock.IsOwner()).Commit()
	must(err)
	check(own.Succeeded, "the lock was lost")
	must(lock.Unlock(ctx))
}

func main() {
	scenarios := []struct {
		name string
		run  func(context.Context, *clientv3.Client)
	}{
		{"keys and values", keysAndValues},
		{"transactions", transactions},
		{"compaction", compaction},
		{"leases", leases},
		{"watches", watches},
		{"mutexes", mutexes},
		{"elections", elections},
		{"software transactions", softwareTransactions},
		{"members and maintenance", membersAndMaintenance},
		{"the death of a leader", deathOfALeader},
	}
	for _, scenario := range scenarios {
		client := connect(endpoints...)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		scenario.run(ctx, client)
		cancel()
		must(client.Close())
		fmt.Println("passed:", scenario.name)
	}
}
