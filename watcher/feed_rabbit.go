//go:build !nocloud

package watcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A rabbitAddress identifies a queue of the RabbitMQ server in the variable RABBIT_SERVER_URL.
//
// gocloud.dev's driver has the same URLs, but after it lost a channel it acknowledges the old messages on a new channel, where their
// numbers belong to other messages. Without a prefetch count it also reads the whole queue into memory.
type rabbitAddress struct {
	queue    string
	prefetch int
	name     string // of the sync
}

func parseRabbit(u *url.URL, query url.Values, name string) (rabbitAddress, error) {
	p := rabbitAddress{queue: path.Join(u.Host, u.Path), prefetch: maxHeldMessages, name: name}
	if err := onlyParameters(query, "prefetch_count"); err != nil {
		return p, err
	}
	if p.queue == "" {
		return p, errors.New("it names no queue; write one such as rabbit://QUEUE, and set RABBIT_SERVER_URL to the server")
	}
	if text := query.Get("prefetch_count"); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return p, errors.New("its prefetch_count is not a number from 1 to 65535")
		}
		p.prefetch = int(n)
	}
	return p, nil
}

func (p rabbitAddress) dial(ctx context.Context) (*amqp.Connection, *amqp.Channel, error) {
	address := os.Getenv("RABBIT_SERVER_URL")
	if address == "" {
		return nil, nil, errors.New("the variable RABBIT_SERVER_URL is not set; set it to the server's address, such as amqp://user:password@host:5672/")
	}
	if _, err := amqp.ParseURI(address); err != nil {
		// The error text contains the password.
		return nil, nil, errors.New("the variable RABBIT_SERVER_URL is not the address of a server; set it to one such as amqp://user:password@host:5672/")
	}
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(strings.TrimSpace("kbsync " + p.name))
	dialer := &dialer{ctx: ctx}
	defer dialer.release()
	conn, err := amqp.DialConfig(address, amqp.Config{
		Heartbeat: dialTimeout, Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			c, err := dialer.Dial(network, addr)
			if err != nil {
				return nil, err
			}
			return c, c.SetDeadline(time.Now().Add(dialTimeout)) // for the handshake
		},
	})
	if err != nil {
		return nil, nil, err
	}
	channel, err := conn.Channel()
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, channel, nil
}

func (p rabbitAddress) explain(err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.NotFound {
		return fmt.Errorf("there is no queue %s; declare it as durable, and bind it to the exchange of the notifications: %w", p.queue, err)
	}
	return err
}

func (p rabbitAddress) open(ctx context.Context) (subscription, error) {
	conn, channel, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (subscription, error) { return nil, errors.Join(p.explain(err), closeRabbit(conn)) }
	if err := channel.Qos(p.prefetch, 0, false); err != nil {
		return fail(err)
	}
	lost := channel.NotifyClose(make(chan *amqp.Error, 1))
	deliveries, err := channel.Consume(p.queue, "", false, false, false, false, nil)
	if err != nil {
		return fail(err)
	}
	return &rabbitSubscription{conn, deliveries, lost}, nil
}

func closeRabbit(conn *amqp.Connection) error {
	if err := conn.CloseDeadline(time.Now().Add(dialTimeout)); !errors.Is(err, amqp.ErrClosed) {
		return err
	}
	return nil
}

// A rabbitSubscription consumes a queue on one channel. At the end of the channel the server delivers the unacknowledged messages
// to the next consumer.
type rabbitSubscription struct {
	conn       *amqp.Connection
	deliveries <-chan amqp.Delivery
	lost       <-chan *amqp.Error
}

func (s *rabbitSubscription) connectedAfter() time.Duration { return 0 }

func (s *rabbitSubscription) lease() time.Duration { return 0 }

func (s *rabbitSubscription) close() { _ = closeRabbit(s.conn) }

func (s *rabbitSubscription) receive(ctx context.Context) (*delivery, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case m, ok := <-s.deliveries:
		if ok {
			return rabbitDelivery(m), nil
		}
	}
	select {
	case reason := <-s.lost:
		if reason != nil {
			return nil, fmt.Errorf("the connection was lost: %w", reason)
		}
	case <-time.After(time.Second):
	}
	return nil, errors.New("the server ended the delivery: the queue was deleted, or its node is down")
}

func rabbitDelivery(m amqp.Delivery) *delivery {
	d := &delivery{message: message{body: m.Body}, ack: func() error { return m.Ack(false) }}
	if len(m.Headers) > 0 {
		d.attributes = map[string]string{}
		for name, value := range m.Headers {
			d.attributes[name] = fmt.Sprint(value)
		}
	}
	return d
}

// check reports whether the queue exists.
func (p rabbitAddress) check(ctx context.Context) (_ string, err error) {
	conn, channel, err := p.dial(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = cmp.Or(err, closeRabbit(conn)) }()
	queue, err := channel.QueueDeclarePassive(p.queue, true, false, false, false, nil)
	if err != nil {
		return "", p.explain(err)
	}
	return fmt.Sprintf("the queue %s exists, with %d messages ready", p.queue, queue.Messages), nil
}
