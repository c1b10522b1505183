package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/process"
	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// maxRetryDelay is the longest delay between two calls of a hook that fails.
const maxRetryDelay = 15 * time.Minute

// doubtDelay is how long a message about sources left behind waits while a guard is in doubt.
const doubtDelay = 10 * time.Second

// deliverAtOnce is how many messages one query of the outbox returns.
const deliverAtOnce = 20

// Deliver calls the hooks for the messages that are due. It returns when the next one is due; zero if the outbox is empty.
func (n *Notifier) Deliver(ctx context.Context) (time.Time, error) {
	for {
		due, err := n.store.Outbox.Due(ctx, n.sync.ID, deliverAtOnce)
		if err != nil {
			return time.Time{}, err
		}
		if len(due) == 0 {
			return n.store.Outbox.NextDue(ctx, n.sync.ID)
		}
		for _, m := range due {
			if err := n.deliver(ctx, m); err != nil {
				return time.Time{}, err
			}
		}
	}
}

// deliver calls the hook for one message. A message without a hook is dropped. The error is that of ctx or of the state.
func (n *Notifier) deliver(ctx context.Context, m state.Message) error {
	if m.Event == eventOrphan && n.inDoubt.Load() {
		return n.store.Outbox.Retry(ctx, m.ID, n.now().Add(doubtDelay))
	}
	var failure error
	if hook := n.hook(m.Event); len(hook) > 0 {
		failure = n.call(ctx, hook, m)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if failure == nil {
		return n.acknowledge(ctx, m)
	}
	delay := retry.EqualJitter(time.Second, maxRetryDelay).Delay(m.Attempts, rand.Float64())
	n.logger.Warn("a hook failed, retrying", "sync", n.sync.Name, "event", m.Event, "notice", m.ID, "error", failure, "wait", delay)
	return n.store.Outbox.Retry(ctx, m.ID, n.now().Add(delay))
}

// acknowledge deletes a delivered message. News that waited for its place can be enqueued then.
func (n *Notifier) acknowledge(ctx context.Context, m state.Message) error {
	if err := n.store.Outbox.Ack(ctx, m.ID); err != nil {
		return err
	}
	if n.postponed.Swap(false) && n.opts.Room != nil {
		n.opts.Room()
	}
	return nil
}

// call calls a hook once.
func (n *Notifier) call(ctx context.Context, hook []string, m state.Message) error {
	timeout := n.opts.Hooks.Timeout
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it took longer than %s", timeout))
	defer cancel()
	var err error
	if url := config.WebhookURL(hook); url != "" {
		err = n.post(ctx, url, m)
	} else {
		err = n.run(ctx, hook, m)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// run runs a command. Its variables do not begin with KBSYNC_ because the command may call kbsync, which takes such variables for
// settings.
func (n *Notifier) run(ctx context.Context, hook []string, m state.Message) error {
	cmd := process.Command(ctx, hook)
	cmd.Env = append(n.opts.Environ[:len(n.opts.Environ):len(n.opts.Environ)],
		"KBHOOK_EVENT="+m.Event, "KBHOOK_SYNC="+n.sync.Name, "KBHOOK_ID="+strconv.FormatInt(m.ID, 10))
	cmd.Stdin = bytes.NewReader(m.Body)
	var output limitedBuffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := process.Run(cmd); err != nil {
		if text := strings.TrimSpace(output.String()); text != "" {
			return fmt.Errorf("run %s: %w: %s", hook[0], err, text)
		}
		return fmt.Errorf("run %s: %w", hook[0], err)
	}
	return nil
}

// A limitedBuffer keeps the first kilobyte of the output of a command.
type limitedBuffer struct{ bytes.Buffer }

// Write implements io.Writer. It never fails.
func (b *limitedBuffer) Write(p []byte) (int, error) {
	const limit = 1 << 10
	if left := limit - b.Len(); left > 0 {
		_, _ = b.Buffer.Write(p[:min(left, len(p))])
	}
	return len(p), nil
}

// post sends a message to a webhook.
func (n *Notifier) post(ctx context.Context, url string, m state.Message) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(m.Body))
	if err != nil {
		return errors.New("post to webhook: its URL cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Kbsync-Event", m.Event)
	req.Header.Set("Kbsync-Notice", strconv.FormatInt(m.ID, 10))
	req.Header.Set("User-Agent", n.opts.UserAgent)
	return send(req, "post to webhook")
}
