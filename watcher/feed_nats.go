//go:build !nocloud

package watcher

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// Short, so that the messages of a killed process soon go to another one. Longer held messages are renewed.
	natsLease = 30 * time.Second
	// A pull takes at most so many messages, and ends after so long.
	natsPull     = 500
	natsPullTime = 30 * time.Second
)

// A natsAddress identifies a JetStream consumer, which may not exist yet.
type natsAddress struct {
	server, stream, durable string
	subjects                []string
	name                    string // of the sync
}

func parseNATS(u *url.URL, query url.Values, name string) (natsAddress, error) {
	p := natsAddress{
		server: u.Scheme + "://" + u.Host, stream: strings.Trim(u.Path, "/"), durable: query.Get("durable"), subjects: query["subject"], name: name,
	}
	if err := onlyParameters(query, "durable", "subject"); err != nil {
		return p, err
	}
	switch {
	case u.Hostname() == "":
		return p, errors.New("it names no server; write one such as nats://host:4222/STREAM")
	case p.stream == "":
		return p, errors.New("it names no stream; write one such as nats://host:4222/STREAM")
	case !isNATSName(p.stream):
		return p, fmt.Errorf("%q is not the name of a stream: it must not contain dots, slashes, spaces and wildcards", p.stream)
	case p.durable != "" && !isNATSName(p.durable):
		return p, fmt.Errorf("durable=%q is not the name of a consumer: it must not contain dots, slashes, spaces and wildcards", p.durable)
	}
	p.durable = cmp.Or(p.durable, durableName(name))
	return p, nil
}

func isNATSName(name string) bool { return name != "" && !strings.ContainsAny(name, ".*>/\\ \t\r\n") }

// durableName is the default name of the consumer of a sync. Two syncs never share one.
func durableName(sync string) string {
	if sync == "" {
		return "kbsync"
	}
	name := "kbsync-" + sync
	if isNATSName(name) {
		return name
	}
	sum := sha256.Sum256([]byte(sync))
	return strings.NewReplacer(".", "-", "*", "-", ">", "-", "/", "-", "\\", "-", " ", "-", "\t", "-", "\r", "-", "\n", "-").Replace(name) + "-" + hex.EncodeToString(sum[:4])
}

// natsOptions are the options of a connection. The credentials come from the variables that the nats program uses.
func natsOptions(name string) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name(strings.TrimSpace("kbsync " + name)), nats.NoReconnect(), nats.Timeout(dialTimeout), nats.PingInterval(10 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the default handler prints the errors
	}
	if file := os.Getenv("NATS_CREDS"); file != "" {
		options = append(options, nats.UserCredentials(file))
	}
	if file := os.Getenv("NATS_NKEY"); file != "" {
		key, err := nats.NkeyOptionFromSeed(file)
		if err != nil {
			return nil, fmt.Errorf("the file that NATS_NKEY names contains no key: %w", err)
		}
		options = append(options, key)
	}
	if user := os.Getenv("NATS_USER"); user != "" {
		options = append(options, nats.UserInfo(user, os.Getenv("NATS_PASSWORD")))
	}
	if token := os.Getenv("NATS_TOKEN"); token != "" {
		options = append(options, nats.Token(token))
	}
	if file := os.Getenv("NATS_CA"); file != "" {
		options = append(options, nats.RootCAs(file))
	}
	if file := os.Getenv("NATS_CERT"); file != "" {
		options = append(options, nats.ClientCert(file, os.Getenv("NATS_KEY")))
	}
	return options, nil
}

// dial connects. The returned channel is closed when the connection is lost.
func (p natsAddress) dial(ctx context.Context) (*nats.Conn, jetstream.JetStream, <-chan struct{}, error) {
	options, err := natsOptions(p.name)
	if err != nil {
		return nil, nil, nil, err
	}
	closed := make(chan struct{})
	dialer := &dialer{ctx: ctx}
	defer dialer.release()
	conn, err := nats.Connect(p.server, append(options, nats.SetCustomDialer(dialer), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))...)
	if err != nil {
		return nil, nil, nil, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, nil, nil, err
	}
	return conn, js, closed, nil
}

// explain adds the remedy to an error of JetStream.
func (p natsAddress) explain(err error) error {
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		subject := "SUBJECT"
		if len(p.subjects) > 0 {
			subject = strings.Join(p.subjects, ",")
		}
		return fmt.Errorf("there is no stream %s; create it with the subject of the notifications, for example: nats stream add %s --subjects=%s --max-age=7d --defaults", p.stream, p.stream, subject)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("the server has no JetStream, without which messages are lost; turn it on (nats-server --jetstream): %w", err)
	}
	return err
}

// consumer returns the consumer. With create it creates a missing one.
func (p natsAddress) consumer(ctx context.Context, js jetstream.JetStream, create bool) (jetstream.Consumer, error) {
	c, err := js.Consumer(ctx, p.stream, p.durable)
	if errors.Is(err, jetstream.ErrNotPullConsumer) {
		return nil, fmt.Errorf("the consumer %s of the stream %s pushes; set durable= to another name, or delete it", p.durable, p.stream)
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) && create {
		c, err = js.CreateConsumer(ctx, p.stream, jetstream.ConsumerConfig{
			Durable: p.durable, Description: "kbsync", FilterSubjects: p.subjects, AckPolicy: jetstream.AckExplicitPolicy, AckWait: natsLease,
			// The scan after each connect finds the earlier changes.
			DeliverPolicy: jetstream.DeliverNewPolicy,
			MaxAckPending: maxHeldMessages,
		})
	}
	if err != nil {
		return nil, p.explain(err)
	}
	if policy := c.CachedInfo().Config.AckPolicy; policy != jetstream.AckExplicitPolicy {
		return nil, fmt.Errorf("the consumer %s of the stream %s does not acknowledge each message (its policy is %v); set durable= to another name, or delete it", p.durable, p.stream, policy)
	}
	return c, nil
}

func (p natsAddress) open(ctx context.Context) (subscription, error) {
	conn, js, closed, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	c, err := p.consumer(ctx, js, true)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &natsSubscription{conn: conn, closed: closed, consumer: c, ackWait: cmp.Or(c.CachedInfo().Config.AckWait, natsLease)}, nil
}

// A natsSubscription pulls from a JetStream consumer.
type natsSubscription struct {
	conn     *nats.Conn
	closed   <-chan struct{}
	consumer jetstream.Consumer
	ackWait  time.Duration

	batch jetstream.MessageBatch // the current pull; nil for none
	end   context.CancelFunc     // ends the pull
}

func (s *natsSubscription) connectedAfter() time.Duration { return 0 }

func (s *natsSubscription) lease() time.Duration { return s.ackWait }

func (s *natsSubscription) receive(ctx context.Context) (*delivery, error) {
	for {
		if s.batch == nil {
			pull, end := context.WithTimeout(context.WithoutCancel(ctx), natsPullTime)
			batch, err := s.consumer.Fetch(natsPull, jetstream.FetchContext(pull), jetstream.FetchHeartbeat(5*time.Second))
			if err != nil {
				end()
				return nil, err
			}
			s.batch, s.end = batch, end
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.closed:
			return nil, fmt.Errorf("the connection to %s was lost: %w", s.conn.Opts.Url, cmp.Or(s.conn.LastError(), nats.ErrConnectionClosed))
		case m, ok := <-s.batch.Messages():
			if ok {
				return natsDelivery(m), nil
			}
			err := s.batch.Error()
			s.end()
			s.batch = nil
			if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, jetstream.ErrNoMessages) {
				return nil, err
			}
		}
	}
}

func natsDelivery(m jetstream.Msg) *delivery {
	d := &delivery{message: message{body: m.Data()}, ack: m.Ack, nack: m.Nak, renew: m.InProgress}
	if header := m.Headers(); len(header) > 0 {
		d.attributes = map[string]string{}
		for name := range header {
			d.attributes[name] = header.Get(name)
		}
	}
	return d
}

func (s *natsSubscription) close() {
	if s.batch != nil {
		s.end()
		for m := range s.batch.Messages() {
			_ = m.Nak() // on an error it comes again when its lease ends
		}
	}
	if !s.conn.IsClosed() {
		_ = s.conn.FlushTimeout(2 * time.Second) // send the queued acknowledgements
	}
	s.conn.Close()
	<-s.closed
}

// check reports whether the consumer exists or can be created.
func (p natsAddress) check(ctx context.Context) (string, error) {
	conn, js, _, err := p.dial(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := js.Stream(ctx, p.stream); err != nil {
		return "", p.explain(err)
	}
	c, err := p.consumer(ctx, js, false)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Sprintf("the stream %s exists; kbsync watch creates the consumer %s", p.stream, p.durable), nil
	}
	if err != nil {
		return "", err
	}
	info := c.CachedInfo()
	return fmt.Sprintf("the consumer %s of the stream %s exists, with %d messages waiting", p.durable, p.stream, info.NumPending+uint64(info.NumAckPending)), nil
}
