package watcher

import (
	"cmp"
	"context"
	"errors"
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

// FeedOptions of a Feed. The zero value works.
type FeedOptions struct {
	// Name is that of the sync: what a broker is told of who listens, and what the name of a consumer that is made is derived from.
	Name string
	// Delay is the time from the first event to the wake. Events that come meanwhile are part of it.
	Delay  time.Duration
	Logger *slog.Logger // for what a person should know once; none if nil
}

// FeedStats are counts since the Feed began.
type FeedStats struct {
	Connected   bool   // the broker is there, as far as its client can tell
	Connections uint64 // times that it became so
	Taken       uint64 // messages that named a document of the root, or a folder
	Elsewhere   uint64 // messages of other buckets and prefixes, and of what is no document
	Unknown     uint64 // messages that nobody understood
	FailedAcks  uint64 // acknowledgements that failed: the broker delivers those messages again, as far as is known
	Held        int    // messages that were received and whose documents are not recorded yet
}

// A Feed tells which parts of a Bucket may have changed, from the notifications of the bucket that a broker delivers. It is a hint and
// no more: an event names a document that is to be looked at, whatever it says of it. So messages that come twice, late or in another
// order are harmless.
//
// A message is acknowledged when everything that it names is recorded: see Recorded. Until then the broker keeps it, and delivers it
// to another process, or to this one again, when this one has ended.
//
// A broker that cannot be reached keeps nobody from scanning: it is told once, and tried again for ever. The whole root is dirty when the
// Feed begins and whenever a connection was made, for what happened before may have been lost.
// A Feed may be used by several goroutines.
type Feed struct {
	bucket  *Bucket
	address string
	opts    FeedOptions
	open    func(ctx context.Context) (subscription, error)
	most    int           // messages held
	backoff retry.Policy  // between attempts to connect
	room    chan struct{} // of size one: messages are held no longer
	cancel  context.CancelFunc
	done    chan struct{}

	// Of the goroutine that runs.
	outage             string // what was logged of the outage that lasts
	saidUnknown, other bool

	dirtyQueue
	fresh, taken []*delivery // the messages that are held: those that Take has not given out, and the others
	stats        FeedStats
}

// What a Feed holds at most, and how patient it is.
const (
	mostHeld     = 10_000
	minReconnect = time.Second
	maxReconnect = time.Minute
	lasting      = time.Minute // a connection of that age was a good one

	// A request a document is worth it as long as it takes no longer than listing the folder, or everything. Sixteen go on at a
	// time, and a listing is a thousand objects a request, one after the other: see docs/design.md.
	dirtyObjects    = 500
	dirtyAllObjects = 5000
)

// A subscription is what a Feed needs of a broker that it is connected to. It is for one goroutine; what its deliveries
// have to call is for any.
type subscription interface {
	// receive waits for the next message. Any error that is not that of ctx ends the use of the subscription.
	receive(ctx context.Context) (*delivery, error)
	// presumed is how long receive must go on without an error for the broker to count as reached; zero where the
	// connection is proof enough.
	presumed() time.Duration
	// lease is the time after which the broker takes a message for lost, if it is not renewed; zero if renewing makes no sense.
	lease() time.Duration
	// close ends the connection. What was received and not given out is handed back before, where that can be done.
	close()
}

// A delivery is a message that waits to be acknowledged.
type delivery struct {
	message
	ack   func() error
	nack  func() error // hands it back; nil where nothing needs to be done for that
	renew func() error // nil where the lease is zero

	keys []string // what it made dirty
}

// Notifications begins to listen to the bucket's notifications at a subscription until ctx ends or Close is called. The URL's schemes
// are awssqs, gcppubsub, azuresb, kafka, rabbit, nats and tls; see docs/buckets.md for what each needs. An error says that the URL is
// wrong, or is that of ctx. Whether the broker can be reached is no matter here.
func (b *Bucket) Notifications(ctx context.Context, address string, opts FeedOptions) (*Feed, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("listen for notifications: %w", err)
	}
	open, err := subscriber(address, opts.Name)
	if err != nil {
		return nil, err
	}
	f := newFeed(b, address, opts, open)
	f.start(ctx)
	return f, nil
}

// CheckSubscription says what is wrong with the URL of a subscription; nil for nothing. It asks nobody.
func CheckSubscription(address string) error {
	_, err := subscriber(address, "")
	return err
}

// subscriber returns what connects to a subscription.
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

// parseSubscriptionURL takes an address apart. What it returns beside an error is what may be shown of it.
func parseSubscriptionURL(address string) (*url.URL, url.Values, error) {
	u, err := url.Parse(address)
	if err != nil {
		scheme, _, _ := strings.Cut(address, ":")
		return &url.URL{Scheme: scheme}, nil, errors.New("it is not a URL; write one such as nats://host:4222/STREAM")
	}
	shown := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	query, err := url.ParseQuery(u.RawQuery)
	switch {
	case u.User != nil:
		return shown, nil, errors.New("it has credentials in it; leave them to the environment (docs/buckets.md)")
	case err != nil:
		return shown, nil, errors.New("it has parameters that cannot be read; write name=value pairs with & between them")
	case u.Fragment != "":
		return shown, nil, errors.New("it has a # in it; write %23 for the character")
	}
	for name, values := range query {
		for _, v := range values {
			if at, err := url.Parse(v); err == nil && at.User != nil {
				return shown, nil, fmt.Errorf("it has credentials in its parameter %s; leave them to the environment (docs/buckets.md)", name)
			}
		}
	}
	return u, query, nil
}

// onlyParameters refuses parameters but those that are named.
func onlyParameters(query url.Values, names ...string) error {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if slices.Contains(names, name) {
			continue
		}
		if len(names) == 0 {
			return fmt.Errorf("it has the parameter %s, and takes none", name)
		}
		return fmt.Errorf("it has the parameter %s; those that it takes are %s", name, strings.Join(names, ", "))
	}
	return nil
}

func newFeed(b *Bucket, address string, opts FeedOptions, open func(context.Context) (subscription, error)) *Feed {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	f := &Feed{
		bucket: b, address: address, opts: opts, open: open, most: mostHeld, backoff: retry.EqualJitter(minReconnect, maxReconnect),
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

// Close hands back the messages that are not acknowledged, where the broker knows such a thing, and returns when nothing of the Feed runs
// any more. It returns nil.
func (f *Feed) Close() error {
	f.cancel()
	<-f.done
	return nil
}

// Take is that of Watch. The messages that named what it returns wait for Recorded.
func (f *Feed) Take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken = append(f.taken, f.fresh...)
	f.fresh = nil
	return f.dirty.take()
}

// Recorded says that everything that was ever taken has been scanned since, and is recorded in the state, but for what left
// covers: prefixes whose scan failed or was incomplete, and documents that have not settled. The messages that named nothing of that are
// acknowledged. An acknowledgement that fails changes nothing: the message comes again, and finds nothing to do.
func (f *Feed) Recorded(left []string) {
	f.mu.Lock()
	var ended []*delivery
	f.taken = slices.DeleteFunc(f.taken, func(d *delivery) bool {
		waits := slices.ContainsFunc(d.keys, func(key string) bool {
			return slices.ContainsFunc(left, func(l string) bool { return covers(l, key) || covers(key, l) })
		})
		if !waits {
			ended = append(ended, d)
		}
		return !waits
	})
	f.mu.Unlock()
	for _, d := range ended {
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
		f.opts.Logger.Debug("a notification could not be acknowledged, and will come again", "error", err)
	}
}

// Stats returns the counts at this moment.
func (f *Feed) Stats() FeedStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Held = len(f.fresh) + len(f.taken)
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
	// A connection that is made and soon lost costs a listing of everything each time.
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
		case time.Since(began) < lasting:
			failed = 0
			soonLost++
		default:
			failed, soonLost = 0, 0
		}
		f.lost(err)
		_ = retry.Sleep(ctx, f.backoff.Delay(max(failed+soonLost-1, 0), rand.Float64()))
	}
}

// lost notes that the broker is away, and tells it once.
func (f *Feed) lost(err error) {
	f.mu.Lock()
	was := f.stats.Connected
	f.stats.Connected = false
	f.mu.Unlock()
	if text := err.Error(); was || text != f.outage {
		f.outage = text
		f.opts.Logger.Warn("notifications do not come for now; the root is listed at every rescan all the same", "subscription", f.address, "error", err)
		return
	}
	f.opts.Logger.Debug("notifications do not come still", "subscription", f.address, "error", err)
}

func (f *Feed) connected() {
	f.mu.Lock()
	f.stats.Connected = true
	f.stats.Connections++
	f.mark("")
	f.mu.Unlock()
	f.outage = ""
	f.opts.Logger.Info("notifications are listened to", "subscription", f.address)
}

// listen connects and takes messages until it cannot go on.
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
	if presumed := sub.presumed(); presumed > 0 {
		next = func(ctx context.Context) (*delivery, error) {
			first, cancel := context.WithTimeout(ctx, presumed)
			defer cancel()
			d, err := sub.receive(first)
			if ctx.Err() == nil && first.Err() != nil {
				return d, nil // nothing came, and nothing was wrong
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

// handBack gives all messages that are held back to the broker. What they made dirty stays so.
func (f *Feed) handBack() {
	f.mu.Lock()
	held := append(f.taken, f.fresh...)
	f.taken, f.fresh = nil, nil
	f.mu.Unlock()
	for _, d := range held {
		if d.nack != nil {
			_ = d.nack() // it comes again when its lease ends
		}
	}
}

// awaitRoom waits until there are not too many messages held.
func (f *Feed) awaitRoom(ctx context.Context) error {
	for f.Stats().Held >= f.most {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.room:
		}
	}
	return nil
}

// renew keeps the broker from taking for lost what is held.
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
		held := slices.Concat(f.taken, f.fresh)
		f.mu.Unlock()
		for _, d := range held {
			if ctx.Err() != nil {
				return
			}
			_ = d.renew() // or it comes twice
		}
	}
}

// admit makes dirty what a message names, and holds it; or acknowledges it, if it names nothing of the root.
func (f *Feed) admit(d *delivery) {
	events, known := parseMessage(d.message)
	other := ""
	for _, e := range events {
		switch prefix, is := f.bucket.prefixOf(e); {
		case is:
			d.keys = append(d.keys, prefix)
		case e.bucket != f.bucket.name():
			other = e.bucket
		}
	}
	f.mu.Lock()
	switch {
	case len(d.keys) > 0:
		f.stats.Taken++
		f.fresh = append(f.fresh, d)
		f.mark(d.keys...)
	case known:
		f.stats.Elsewhere++
	default:
		f.stats.Unknown++
	}
	f.mu.Unlock()
	if len(d.keys) > 0 {
		d.body, d.attributes = nil, nil // it may be held for long
		return
	}
	if !known && !f.saidUnknown {
		f.saidUnknown = true
		f.opts.Logger.Warn("a notification that nobody understands; it is dropped, and further ones are only counted", "subscription", f.address,
			"bytes", len(d.body), "attributes", slices.Sorted(maps.Keys(d.attributes)))
	}
	if other != "" && !f.other {
		f.other = true
		f.opts.Logger.Info("notifications come for another bucket; they are dropped, and further ones are only counted", "subscription", f.address,
			"bucket", other, "expected", f.bucket.name())
	}
	f.acknowledge(d)
}

// name is the bucket's in its cloud.
func (b *Bucket) name() string {
	u, err := url.Parse(b.url)
	if err != nil {
		return ""
	}
	return u.Host
}

// prefixOf returns what an event makes dirty; false if that is nothing of this root, or no document.
func (b *Bucket) prefixOf(e bucketEvent) (string, bool) {
	if e.bucket != b.name() {
		return "", false
	}
	key, ok := strings.CutPrefix(e.key, b.prefix)
	folder := strings.HasSuffix(e.key, "/") || e.key == ""
	switch {
	case !ok:
		// A folder that holds the root.
		return "", folder && strings.HasPrefix(b.prefix, e.key)
	case key == ignoreName:
		return "", true
	case key == "":
		return "", folder
	case folder:
		return key, true
	}
	filter := keyFilter{filter: b.filter}
	return key, !filter.document(key).out
}
