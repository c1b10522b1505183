package watcher

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	gosync "sync"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
)

// FeedOptions configure a Feed. The zero value works.
type FeedOptions struct {
	// Name is the name of the sync. The broker shows it as the client's name, and a new consumer is named after it.
	Name string
	// Delay is the time from the first event to the wakeup. Further events in that time do not wake again.
	Delay  time.Duration
	Logger *slog.Logger // none if nil
}

// FeedStats are counts since the Feed began.
type FeedStats struct {
	Connected   bool   // the broker answers, as far as its client knows
	Connections uint64 // times that the Feed connected
	Taken       uint64 // messages that name a document of the root, or a folder
	Elsewhere   uint64 // messages of other buckets and prefixes, and of objects that are not documents
	Unknown     uint64 // messages in an unknown format
	FailedAcks  uint64 // failed acknowledgements: the broker probably delivers those messages again
	Held        int    // received messages whose documents are not recorded yet
}

// A Feed reports which parts of a Bucket may have changed, from the bucket's notifications at a broker. It is only a hint: an event
// names a document to look at, and nothing else in the event counts. So duplicate, late and reordered messages are harmless.
//
// A message is acknowledged when everything that it names is recorded; see Recorded. Until then the broker keeps it and, when
// this process ends, delivers it again to this or another process.
//
// An unreachable broker does not stop scans. The Feed logs the outage once and tries to connect without end. The whole root is dirty
// when the Feed begins and after each connect, because earlier events may be lost.
// Several goroutines may use a Feed.
type Feed struct {
	bucket  *Bucket
	address string
	opts    FeedOptions
	open    func(ctx context.Context) (subscription, error)
	maxHeld int           // messages
	backoff retry.Policy  // between attempts to connect
	room    chan struct{} // of size one: messages were released
	cancel  context.CancelFunc
	done    chan struct{}

	// Used by the goroutine of run only.
	outage                       string // the logged error of the current outage
	loggedUnknown, loggedForeign bool

	dirtyQueue
	// The held messages: those whose keys Take has not returned yet, and the others.
	untaken, taken []*delivery
	stats          FeedStats
}

// Bounds of a Feed.
const (
	minReconnect = time.Second
	maxReconnect = time.Minute
	stableAfter  = time.Minute // a connection of this age resets the backoff

	// Looking at single objects pays only while it is faster than a listing of the folder, or of the root. Sixteen single requests
	// run at a time; a listing requests a thousand objects at once, one page after the other. See docs/design.md.
	dirtyObjects    = 500
	dirtyAllObjects = 5000
)

// A delivery is a message that is not acknowledged yet.
type delivery struct {
	message
	ack   func() error
	nack  func() error // returns it to the broker; nil if the end of the connection does
	renew func() error // nil if the lease is zero

	keys []string // the keys it made dirty
}

// Notifications receives the bucket's notifications from a subscription until ctx ends or Close is called. The schemes of the URL
// are awssqs, gcppubsub, azuresb, kafka, rabbit, nats and tls; docs/buckets.md describes each. The error is that of ctx or of an
// invalid URL. An unreachable broker is not an error.
func (b *Bucket) Notifications(ctx context.Context, address string, opts FeedOptions) (*Feed, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("receive notifications: %w", err)
	}
	open, err := subscriber(address, opts.Name)
	if err != nil {
		return nil, err
	}
	f := newFeed(b, address, opts, open)
	f.start(ctx)
	return f, nil
}

// CheckSubscription returns an error if the URL of a subscription is invalid. It sends no request.
func CheckSubscription(address string) error {
	_, err := subscriber(address, "")
	return err
}

// subscriber returns a function that connects to a subscription.
func subscriber(address, name string) (func(context.Context) (subscription, error), error) {
	u, query, err := parseSubscriptionURL(address)
	if err == nil {
		var open func(context.Context) (subscription, error)
		if open, err = openerOf(u, query, name); err == nil {
			return open, nil
		}
	}
	return nil, fmt.Errorf("notifications %s: %w", u, err)
}

func newFeed(b *Bucket, address string, opts FeedOptions, open func(context.Context) (subscription, error)) *Feed {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	f := &Feed{
		bucket: b, address: address, opts: opts, open: open, maxHeld: maxHeldMessages, backoff: retry.EqualJitter(minReconnect, maxReconnect),
		room: make(chan struct{}, 1), done: make(chan struct{}), dirtyQueue: newDirtyQueue(opts.Delay),
	}
	f.dirty.maxNames, f.dirty.maxTotal = dirtyObjects, dirtyAllObjects
	return f
}

func (f *Feed) start(ctx context.Context) {
	ctx, f.cancel = context.WithCancel(ctx)
	f.Mark("")
	go f.run(ctx)
}

// Close returns the unacknowledged messages to the broker, if the broker supports that. It returns when all goroutines of the Feed
// have ended. The error is always nil.
func (f *Feed) Close() error {
	f.cancel()
	<-f.done
	return nil
}

// Take is like Watch.Take. The messages that named the prefixes are held until Recorded.
func (f *Feed) Take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken = append(f.taken, f.untaken...)
	f.untaken = nil
	return f.dirty.take()
}

// Recorded reports that all prefixes that Take ever returned were scanned since and are recorded in the state, except prefixes that
// left covers: prefixes whose scan failed or was incomplete, and documents that have not settled. Recorded acknowledges the
// messages that name none of these. A failed acknowledgement does no harm: the message comes again, and its scan finds no change.
func (f *Feed) Recorded(left []string) {
	f.mu.Lock()
	var done []*delivery
	f.taken = slices.DeleteFunc(f.taken, func(d *delivery) bool {
		waits := slices.ContainsFunc(d.keys, func(key string) bool {
			return slices.ContainsFunc(left, func(l string) bool { return covers(l, key) || covers(key, l) })
		})
		if !waits {
			done = append(done, d)
		}
		return !waits
	})
	f.mu.Unlock()
	for _, d := range done {
		f.acknowledge(d)
	}
	select {
	case f.room <- struct{}{}:
	default:
	}
}

func (f *Feed) acknowledge(d *delivery) {
	if err := d.ack(); err != nil {
		f.mu.Lock()
		f.stats.FailedAcks++
		f.mu.Unlock()
		f.opts.Logger.Debug("cannot acknowledge a notification, it will come again", "error", err)
	}
}

// Stats returns the counts at this moment.
func (f *Feed) Stats() FeedStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Held = len(f.untaken) + len(f.taken)
	return s
}

// run keeps the subscription connected.
func (f *Feed) run(ctx context.Context) {
	defer close(f.done)
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.dirtyQueue.stop()
	}()
	// Each connect causes a listing of the whole root, so connections that are soon lost also back off.
	failed, soonLost := 0, 0
	for {
		began := time.Now()
		err := f.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case !f.Stats().Connected:
			failed++
		case time.Since(began) < stableAfter:
			failed = 0
			soonLost++
		default:
			failed, soonLost = 0, 0
		}
		f.lost(err)
		_ = retry.Sleep(ctx, f.backoff.Delay(max(failed+soonLost-1, 0), rand.Float64()))
	}
}

// lost records the loss of the connection, and logs each outage once.
func (f *Feed) lost(err error) {
	f.mu.Lock()
	was := f.stats.Connected
	f.stats.Connected = false
	f.mu.Unlock()
	if text := err.Error(); was || text != f.outage {
		f.outage = text
		f.opts.Logger.Warn("notifications interrupted; rescans still list the root", "subscription", f.address, "error", err)
		return
	}
	f.opts.Logger.Debug("notifications still interrupted", "subscription", f.address, "error", err)
}

func (f *Feed) connected() {
	f.mu.Lock()
	f.stats.Connected = true
	f.stats.Connections++
	f.mark("")
	f.mu.Unlock()
	f.outage = ""
	f.opts.Logger.Info("receiving notifications", "subscription", f.address)
}

// listen connects and receives messages until an error.
func (f *Feed) listen(ctx context.Context) error {
	sub, err := f.open(ctx)
	if err != nil {
		return err
	}
	var renewals gosync.WaitGroup
	listening, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		renewals.Wait()
		f.handBack()
		sub.close()
	}()
	if lease := sub.lease(); lease > 0 {
		renewals.Go(func() { f.renew(listening, lease/3) })
	}
	next := sub.receive
	if after := sub.connectedAfter(); after > 0 {
		next = func(ctx context.Context) (*delivery, error) {
			first, cancel := context.WithTimeout(ctx, after)
			defer cancel()
			d, err := sub.receive(first)
			if ctx.Err() == nil && first.Err() != nil {
				return d, nil // the time has passed without a message or an error
			}
			return d, err
		}
	} else {
		f.connected()
	}
	for {
		if err := f.awaitRoom(ctx); err != nil {
			return err
		}
		d, err := next(ctx)
		if err != nil {
			return err
		}
		if !f.Stats().Connected {
			f.connected()
			next = sub.receive
		}
		if d != nil {
			f.admit(d)
		}
	}
}

// handBack returns all held messages to the broker. Their keys stay dirty.
func (f *Feed) handBack() {
	f.mu.Lock()
	held := append(f.taken, f.untaken...)
	f.taken, f.untaken = nil, nil
	f.mu.Unlock()
	for _, d := range held {
		if d.nack != nil {
			_ = d.nack() // on an error it comes again when its lease ends
		}
	}
}

// awaitRoom waits until fewer messages are held than allowed.
func (f *Feed) awaitRoom(ctx context.Context) error {
	for f.Stats().Held >= f.maxHeld {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.room:
		}
	}
	return nil
}

// renew renews the leases of the held messages, so that the broker does not deliver them again.
func (f *Feed) renew(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		f.mu.Lock()
		held := slices.Concat(f.taken, f.untaken)
		f.mu.Unlock()
		for _, d := range held {
			if ctx.Err() != nil {
				return
			}
			_ = d.renew() // on an error it comes twice, without harm
		}
	}
}

// admit marks the keys that a message names and holds the message. If it names no key of the root, admit acknowledges it.
func (f *Feed) admit(d *delivery) {
	events, known := parseMessage(d.message)
	foreign := ""
	for _, e := range events {
		switch prefix, is := f.bucket.prefixOf(e); {
		case is:
			d.keys = append(d.keys, prefix)
		case e.bucket != f.bucket.name():
			foreign = e.bucket
		}
	}
	f.mu.Lock()
	switch {
	case len(d.keys) > 0:
		f.stats.Taken++
		f.untaken = append(f.untaken, d)
		f.mark(d.keys...)
	case known:
		f.stats.Elsewhere++
	default:
		f.stats.Unknown++
	}
	f.mu.Unlock()
	if len(d.keys) > 0 {
		d.body, d.attributes = nil, nil // the message may be held for long
		return
	}
	if !known && !f.loggedUnknown {
		f.loggedUnknown = true
		f.opts.Logger.Warn("dropped a notification in an unknown format; further ones are only counted", "subscription", f.address,
			"bytes", len(d.body), "attributes", slices.Sorted(maps.Keys(d.attributes)))
	}
	if foreign != "" && !f.loggedForeign {
		f.loggedForeign = true
		f.opts.Logger.Info("dropped a notification of another bucket; further ones are only counted", "subscription", f.address,
			"bucket", foreign, "expected", f.bucket.name())
	}
	f.acknowledge(d)
}

// name returns the bucket's name in its cloud.
func (b *Bucket) name() string {
	u, err := url.Parse(b.url)
	if err != nil {
		return ""
	}
	return u.Host
}

// prefixOf returns the prefix that an event makes dirty; false if the event names no document of this root.
func (b *Bucket) prefixOf(e bucketEvent) (string, bool) {
	if e.bucket != b.name() {
		return "", false
	}
	key, ok := strings.CutPrefix(e.key, b.prefix)
	folder := strings.HasSuffix(e.key, "/") || e.key == ""
	switch {
	case !ok:
		// The key may be a folder above the root.
		return "", folder && strings.HasPrefix(b.prefix, e.key)
	case baseName(key) == ignoreName:
		return strings.TrimSuffix(key, ignoreName), true
	case key == "":
		return "", folder
	case folder:
		return key, true
	}
	filter := keyFilter{filter: b.filter}
	v, _ := filter.document(key) // without ignore files there is no error
	return key, !v.out
}
