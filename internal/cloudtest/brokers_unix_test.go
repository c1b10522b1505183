//go:build unix

package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
)

// A broker is a notification server with one subscription.
type broker struct {
	url string   // of the subscription, for kbsync
	env []string // for kbsync
	// direct are the flags with which the gateway publishes to the broker.
	direct []string
	// restart restarts the server with its stored messages.
	restart    func() error
	stop, back func() error // the two halves of restart; nil if no test needs them
	publish    func(ctx context.Context, body []byte) error
	// waiting returns the number of unacknowledged messages; of RabbitMQ only those that no consumer holds.
	waiting func(ctx context.Context) (int, error)
}

// A brokerKind creates brokers.
type brokerKind struct {
	name string
	open func(t *testing.T) *broker
}

var brokerKinds = []brokerKind{{"nats", openNATS}, {"rabbit", openRabbit}}

// A natsBroker is a NATS server in this process, with JetStream.
type natsBroker struct {
	options server.Options
	server  *server.Server
}

func (b *natsBroker) start() error {
	options := b.options
	s, err := server.NewServer(&options)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("the NATS server does not start")
	}
	b.server = s
	return nil
}

func (b *natsBroker) stop() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

func (b *natsBroker) address() string { return fmt.Sprintf("127.0.0.1:%d", b.options.Port) }

func newNATS(t *testing.T) *natsBroker {
	b := &natsBroker{options: newNATSOptions(t)}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	return b
}

func newNATSOptions(t *testing.T) server.Options {
	return server.Options{Host: "127.0.0.1", Port: freePort(), JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true}
}

func openNATS(t *testing.T) *broker {
	b := newNATS(t)
	conn, err := nats.Connect("nats://"+b.address(), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "DOCS", Subjects: []string{"bucket.docs"}}); err != nil {
		t.Fatal(err)
	}
	// A short lease, so that the messages of a killed kbsync come again during the test.
	if _, err := js.CreateConsumer(t.Context(), "DOCS", jetstream.ConsumerConfig{
		Durable: "kbsync-docs", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 3 * time.Second, MaxAckPending: 10_000,
	}); err != nil {
		t.Fatal(err)
	}
	return &broker{
		url:    "nats://" + b.address() + "/DOCS?durable=kbsync-docs",
		direct: []string{"--event-nats-url", "nats://" + b.address(), "--event-nats-topic", "bucket.docs"},
		restart: func() error {
			b.stop()
			time.Sleep(500 * time.Millisecond)
			return b.start()
		},
		stop: func() error { b.stop(); return nil },
		back: b.start,
		publish: func(ctx context.Context, body []byte) error {
			_, err := js.Publish(ctx, "bucket.docs", body)
			return err
		},
		waiting: func(ctx context.Context) (int, error) {
			c, err := js.Consumer(ctx, "DOCS", "kbsync-docs")
			if err != nil {
				return 0, err
			}
			info := c.CachedInfo()
			return int(info.NumPending) + info.NumAckPending, nil
		},
	}
}

// A rabbitBroker is a RabbitMQ child process with a separate Erlang port mapper.
type rabbitBroker struct {
	dir    string
	port   int
	env    []string
	mapper func()
	stop   func()
}

var rabbit struct {
	once          sync.Once
	*rabbitBroker // nil until the first use
	err           error
	// turn serializes restarts.
	turn sync.Mutex
}

// rabbitProgram returns the path of the server without Debian's wrapper, which changes the user.
func rabbitProgram() string {
	path, err := filepath.EvalSymlinks("/usr/lib/rabbitmq/bin/rabbitmq-server")
	if err != nil {
		path, _ = exec.LookPath("rabbitmq-server")
	}
	return path
}

func newRabbit() (*rabbitBroker, error) {
	dir, err := os.MkdirTemp("", "kbsync-rabbit-*")
	if err != nil {
		return nil, err
	}
	b := &rabbitBroker{dir: dir, port: freePort()}
	mapped := freePort()
	in := func(name string) string { return filepath.Join(dir, name) }
	b.env = append(os.Environ(),
		"HOME="+dir, "RABBITMQ_NODENAME="+fmt.Sprintf("kbsync%d@localhost", b.port),
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", fmt.Sprintf("RABBITMQ_NODE_PORT=%d", b.port), fmt.Sprintf("RABBITMQ_DIST_PORT=%d", freePort()),
		"RABBITMQ_MNESIA_BASE="+in("mnesia"), "RABBITMQ_LOG_BASE="+in("log"), "RABBITMQ_LOGS=-", "RABBITMQ_PID_FILE="+in("pid"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+in("plugins"), "RABBITMQ_CONFIG_FILE="+in("config"), "RABBITMQ_ADVANCED_CONFIG_FILE="+in("advanced"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+in("generated"), "RABBITMQ_CONF_ENV_FILE="+os.DevNull,
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		fmt.Sprintf("ERL_EPMD_PORT=%d", mapped), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RUNNING_UNDER_SYSTEMD=true", // makes the process the server itself
	)
	mapper := exec.Command("epmd")
	mapper.Env = b.env
	if b.mapper, err = run(fmt.Sprintf("127.0.0.1:%d", mapped), mapper); err != nil {
		return b, err
	}
	return b, b.start()
}

func (b *rabbitBroker) start() (err error) {
	cmd := exec.Command(rabbitProgram())
	cmd.Env, cmd.Dir = b.env, b.dir
	kill, err := run(fmt.Sprintf("127.0.0.1:%d", b.port), cmd)
	if err != nil {
		return err
	}
	b.stop = sync.OnceFunc(func() {
		// A clean stop, which saves the queues. After a kill the next start takes longer.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		for range 600 {
			if cmd.Process.Signal(syscall.Signal(0)) != nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		kill()
	})
	return nil
}

func (b *rabbitBroker) close() {
	if b.stop != nil {
		b.stop()
	}
	if b.mapper != nil {
		b.mapper()
	}
	_ = os.RemoveAll(b.dir)
}

func openRabbit(t *testing.T) *broker {
	if rabbitProgram() == "" {
		if os.Getenv("TEST_SERVERS") == "all" {
			t.Fatal("RabbitMQ is not there: run .ci/servers install")
		}
		t.Skip("RabbitMQ is not there: run .ci/servers install")
	}
	rabbit.turn.Lock()
	t.Cleanup(rabbit.turn.Unlock)
	rabbit.once.Do(func() {
		if rabbit.rabbitBroker, rabbit.err = newRabbit(); rabbit.rabbitBroker != nil {
			cleanups = append(cleanups, rabbit.close)
		}
	})
	if rabbit.err != nil {
		t.Fatal(rabbit.err)
	}
	address := fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", rabbit.port)
	queue := fmt.Sprintf("docs-%d", buckets.Add(1))
	p := &rabbitPublisher{address: address, queue: queue}
	t.Cleanup(p.close)
	if err := p.connect(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.channel.QueueDeclare(queue, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	return &broker{
		url: "rabbit://" + queue,
		env: []string{"RABBIT_SERVER_URL=" + address},
		// The default exchange routes by queue name.
		direct: []string{"--event-rabbitmq-url", address, "--event-rabbitmq-routing-key", queue},
		restart: func() error {
			rabbit.stop()
			return rabbit.start()
		},
		publish: p.publish,
		waiting: func(context.Context) (int, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if err := p.connect(); err != nil {
				return 0, err
			}
			q, err := p.channel.QueueDeclarePassive(queue, true, false, false, false, nil)
			return q.Messages, err
		},
	}
}

// A rabbitPublisher publishes messages and waits for the confirmation of the server.
type rabbitPublisher struct {
	address, queue string
	mu             sync.Mutex
	conn           *amqp.Connection
	channel        *amqp.Channel
}

func (p *rabbitPublisher) connect() (err error) {
	if p.channel != nil && !p.channel.IsClosed() {
		return nil
	}
	p.close()
	if p.conn, err = amqp.Dial(p.address); err != nil {
		return err
	}
	if p.channel, err = p.conn.Channel(); err != nil {
		return err
	}
	return p.channel.Confirm(false)
}

func (p *rabbitPublisher) close() {
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn, p.channel = nil, nil
	}
}

func (p *rabbitPublisher) publish(ctx context.Context, body []byte) error {
	p.mu.Lock()
	if err := p.connect(); err != nil {
		p.mu.Unlock()
		return err
	}
	confirmed, err := p.channel.PublishWithDeferredConfirmWithContext(ctx, "", p.queue, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: body})
	p.mu.Unlock()
	if err != nil {
		return err
	}
	ok, err := confirmed.WaitContext(ctx)
	if err == nil && !ok {
		err = errors.New("the server rejected the message")
	}
	return err
}
