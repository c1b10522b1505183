//go:build !nocloud

package watcher

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	servicebus "github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"gocloud.dev/gcp"
	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/awssnssqs"
	"gocloud.dev/pubsub/azuresb"
	"gocloud.dev/pubsub/gcppubsub"
	"gocloud.dev/pubsub/kafkapubsub"
	"gocloud.dev/pubsub/mempubsub"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// openerOf returns a function that connects to the subscription of a URL. It sends no request.
func openerOf(u *url.URL, query url.Values, name string) (func(context.Context) (subscription, error), error) {
	switch u.Scheme {
	case "nats", "tls":
		p, err := parseNATS(u, query, name)
		return p.open, err
	case "rabbit":
		p, err := parseRabbit(u, query, name)
		return p.open, err
	case awssnssqs.SQSScheme:
		return openSQS(u, query)
	case gcppubsub.Scheme:
		return openPubSub(u, query)
	case azuresb.Scheme:
		return openServiceBus(u, query)
	case kafkapubsub.Scheme:
		return openKafka(u, query)
	case mempubsub.Scheme:
		return func(ctx context.Context) (subscription, error) {
			sub, err := pubsub.OpenSubscription(ctx, u.String())
			if err != nil {
				return nil, err
			}
			return &gocloudSubscription{sub: sub}, nil
		}, nil
	}
	return nil, errors.New("its scheme must be awssqs, gcppubsub, azuresb, kafka, rabbit, nats or tls")
}

// CheckNotifications checks with the broker whether the subscription exists, and takes no message. It returns a description of the
// result.
func CheckNotifications(ctx context.Context, address, name string) (string, error) {
	u, query, err := parseSubscriptionURL(address)
	if err == nil {
		_, err = openerOf(u, query, name)
	}
	var found string
	if err == nil {
		switch u.Scheme {
		case "nats", "tls":
			p, _ := parseNATS(u, query, name)
			found, err = p.check(ctx)
		case "rabbit":
			p, _ := parseRabbit(u, query, name)
			found, err = p.check(ctx)
		default:
			found = "the URL is valid; the broker was not checked, because that would take messages"
		}
	}
	if err != nil {
		return "", fmt.Errorf("notifications %s: %w", u, err)
	}
	return found, nil
}

// The functions below use gocloud.dev's drivers. The default openers keep their first client, even if a credential was missing, so
// each connection here makes its own client.

// quietTime is how long a client that connects in the background must run without an error to count as connected.
const quietTime = 10 * time.Second

func openSQS(u *url.URL, query url.Values) (func(context.Context) (subscription, error), error) {
	if u.Host == "" || strings.Trim(u.Path, "/") == "" {
		return nil, errors.New("it names no queue; write the queue's URL with awssqs in place of https, for example awssqs://sqs.eu-west-1.amazonaws.com/123456789012/docs")
	}
	if err := onlyParameters(query, "anonymous", "dualstack", "endpoint", "fips", "hostname_immutable", "nacklazy", "profile", "rate_limiter_capacity", "raw",
		"region", "request_checksum_calculation", "response_checksum_validation", "role", "snstopicarn", "waittime"); err != nil {
		return nil, err
	}
	if !query.Has("waittime") {
		query.Set("waittime", "20s") // short polling would send four requests a second
	}
	at := *u
	at.RawQuery = query.Encode()
	return func(ctx context.Context) (subscription, error) {
		sub, err := new(awssnssqs.URLOpener).OpenSubscriptionURL(ctx, &at)
		if err != nil {
			return nil, err
		}
		return &gocloudSubscription{sub: sub, after: quietTime}, nil
	}, nil
}

func openPubSub(u *url.URL, query url.Values) (func(context.Context) (subscription, error), error) {
	if err := onlyParameters(query, "max_recv_batch_size", "nacklazy"); err != nil {
		return nil, err
	}
	if u.Host == "" || strings.Trim(u.Path, "/") == "" {
		return nil, errors.New("it names no subscription; write one such as gcppubsub://projects/PROJECT/subscriptions/NAME")
	}
	return func(ctx context.Context) (subscription, error) {
		var conn *grpc.ClientConn
		var err error
		if emulator := os.Getenv("PUBSUB_EMULATOR_HOST"); emulator != "" {
			conn, err = grpc.NewClient(emulator, grpc.WithTransportCredentials(insecure.NewCredentials()))
		} else {
			credentials, failed := gcp.DefaultCredentials(ctx)
			if failed != nil {
				return nil, fmt.Errorf("no credentials were found: %w", failed)
			}
			conn, _, err = gcppubsub.Dial(ctx, credentials.TokenSource)
		}
		if err != nil {
			return nil, err
		}
		sub, err := (&gcppubsub.URLOpener{Conn: conn}).OpenSubscriptionURL(ctx, u)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return &gocloudSubscription{sub: sub, after: quietTime, closeClient: func() { _ = conn.Close() }}, nil
	}, nil
}

func openServiceBus(u *url.URL, query url.Values) (func(context.Context) (subscription, error), error) {
	if err := onlyParameters(query, "subscription", "listener_timeout"); err != nil {
		return nil, err
	}
	entity := path.Join(u.Host, u.Path)
	if entity == "" {
		return nil, errors.New("it names no topic; write azuresb://TOPIC?subscription=NAME, or azuresb://QUEUE")
	}
	options := azuresb.SubscriptionOptions{ListenerTimeout: 20 * time.Second}
	if text := query.Get("listener_timeout"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return nil, errors.New("its listener_timeout is not a positive duration such as 20s")
		}
		options.ListenerTimeout = d
	}
	return func(ctx context.Context) (subscription, error) {
		var client *servicebus.Client
		var err error
		switch secret, host := os.Getenv("SERVICEBUS_CONNECTION_STRING"), os.Getenv("AZURE_SERVICEBUS_HOSTNAME"); {
		case secret != "":
			if client, err = azuresb.NewClientFromConnectionString(secret, nil); err != nil {
				return nil, errors.New("the variable SERVICEBUS_CONNECTION_STRING is not a connection string of a Service Bus namespace")
			}
		case host != "":
			client, err = azuresb.NewClientFromServiceBusHostname(host, nil)
		default:
			err = errors.New("neither AZURE_SERVICEBUS_HOSTNAME nor SERVICEBUS_CONNECTION_STRING is set; set AZURE_SERVICEBUS_HOSTNAME to the namespace's host name, such as NAME.servicebus.windows.net")
		}
		if err != nil {
			return nil, err
		}
		end := func() {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
			defer cancel()
			_ = client.Close(closing)
		}
		var receiver *servicebus.Receiver
		if name := query.Get("subscription"); name != "" {
			receiver, err = client.NewReceiverForSubscription(entity, name, nil)
		} else {
			receiver, err = client.NewReceiverForQueue(entity, nil)
		}
		var sub *pubsub.Subscription
		if err == nil {
			sub, err = azuresb.OpenSubscription(ctx, client, receiver, &options)
		}
		if err != nil {
			end()
			return nil, err
		}
		return &gocloudSubscription{sub: sub, after: quietTime, closeClient: end}, nil
	}, nil
}

func openKafka(u *url.URL, query url.Values) (func(context.Context) (subscription, error), error) {
	if err := onlyParameters(query, "topic", "offset"); err != nil {
		return nil, err
	}
	if path.Join(u.Host, u.Path) == "" || query.Get("topic") == "" {
		return nil, errors.New("it names no group or no topic; write kafka://GROUP?topic=TOPIC, and set KAFKA_BROKERS to the brokers")
	}
	return func(ctx context.Context) (subscription, error) {
		brokers := strings.FieldsFunc(os.Getenv("KAFKA_BROKERS"), func(r rune) bool { return r == ',' || r == ' ' })
		if len(brokers) == 0 {
			return nil, errors.New("the variable KAFKA_BROKERS is not set; set it to the brokers' addresses, such as host:9092,other:9092")
		}
		config := kafkapubsub.MinimalConfig()
		config.Net.DialTimeout, config.Metadata.Timeout = closeTimeout, 2*closeTimeout
		// The opener takes no notice of the end of ctx.
		var sub *pubsub.Subscription
		var err error
		opened := make(chan struct{})
		go func() {
			defer close(opened)
			sub, err = (&kafkapubsub.URLOpener{Brokers: brokers, Config: config}).OpenSubscriptionURL(ctx, u)
			if err == nil && ctx.Err() != nil {
				_ = sub.Shutdown(ctx)
			}
		}()
		select {
		case <-opened:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		return &gocloudSubscription{sub: sub, after: quietTime}, nil
	}, nil
}

// A dialer closes its connection when its context ends, until release. The brokers' clients ignore the context in their
// handshakes.
type dialer struct {
	ctx  context.Context
	stop func() bool // nil before the first connection
}

// Dial is like net.Dialer.Dial.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.release()
	c, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.stop = context.AfterFunc(d.ctx, func() { _ = c.Close() })
	return c, nil
}

func (d *dialer) release() {
	if d.stop != nil {
		d.stop()
	}
}

// A gocloudSubscription is a subscription of one of gocloud.dev's drivers.
type gocloudSubscription struct {
	sub         *pubsub.Subscription
	after       time.Duration // see connectedAfter
	closeClient func()        // nil if there is no client to close

	dropped []*pubsub.Message // messages that cannot be returned to the broker
}

// closeTimeout bounds the end of a connection.
const closeTimeout = 5 * time.Second

func (p *gocloudSubscription) connectedAfter() time.Duration { return p.after }

// lease is zero: the drivers renew nothing, and the subscription's own setting counts.
func (p *gocloudSubscription) lease() time.Duration { return 0 }

func (p *gocloudSubscription) receive(ctx context.Context) (*delivery, error) {
	m, err := p.sub.Receive(ctx)
	if err != nil {
		return nil, err
	}
	// Ack and Nack only queue the message. An error fails a later Receive.
	d := &delivery{message: message{body: m.Body, attributes: m.Metadata}, ack: func() error { m.Ack(); return nil }}
	d.nack = func() error { m.Nack(); return nil }
	if !m.Nackable() {
		d.nack = func() error { p.dropped = append(p.dropped, m); return nil }
	}
	return d, nil
}

func (p *gocloudSubscription) close() {
	// Return the messages that were fetched ahead, which no other process could receive until their leases end.
	drain, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	for {
		d, err := p.receive(drain)
		if err != nil {
			break
		}
		_ = d.nack()
	}
	cancel()
	closing, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = p.sub.Shutdown(closing)
	for _, m := range p.dropped {
		m.Ack() // the broker does not receive it; it keeps gocloud.dev from logging the message as lost
	}
	if p.closeClient != nil {
		p.closeClient()
	}
}
