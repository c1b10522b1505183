package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// distance is the delay of each request to the distant bucket.
const distance = 80 * time.Millisecond

// A bucket is one that the harness filled, with the config of its sync.
type bucket struct {
	name, dir, state string
	files            int
}

// buckets is P5, P5b and, for a bucket, P4: objects on a real S3 server, in which nothing has changed.
func (h *harness) buckets(ctx context.Context) error {
	n := h.scale.objects
	work := fmt.Sprintf("%d objects on S3, nothing changed", n)
	if reason := h.programs.s3Reason; reason != "" {
		for _, id := range []string{"P4", "P5", "P5b"} {
			h.results.row(id, work, &series{Program: "kbsync sync", Missing: reason}).atMost("not measured", median(nil), "x", 0)
		}
		return nil
	}
	s3, err := h.serveS3(ctx)
	if err != nil {
		return err
	}
	defer s3.stop()
	c := corpus{"O", n, 1 << 10}
	if n == h.scale.b.Files {
		c = h.scale.b
	}
	whole, err := h.fill(ctx, s3, "whole", c)
	if err != nil {
		return err
	}
	part, err := h.fill(ctx, s3, "tenth", corpus{"O tenth", n / 10, 1 << 10})
	if err != nil {
		return err
	}
	all, err := h.alternate(ctx, h.scale.rounds, "s",
		h.syncBucket("kbsync sync", whole, s3.address),
		h.bare(whole, s3.address),
		h.rcloneBucket(whole, s3.address, "--fast-list"),
		h.syncBucket(fmt.Sprintf("kbsync sync of %d", part.files), part, s3.address),
	)
	if err != nil {
		return err
	}
	r := h.results.row("P5", work, all[:3]...)
	r.atMost("time compared with reading the pages", all[0].value()/all[1].value(), "x", 1.1)
	r.atMost("time compared with rclone", all[0].value()/all[2].value(), "x", 0.5)
	r.atMost("peak memory", all[0].peak(), "MiB", 80)
	r = h.results.row("P4", fmt.Sprintf("%d objects on S3, nothing changed, compared with %d", n, part.files), all[0], all[3])
	r.atMost("peak memory compared", all[0].peak()/all[3].peak(), "x", 1.2)
	r.atMost("time compared with linear growth", all[0].value()/all[3].value()*float64(part.files)/float64(n), "x", 1.3)
	return h.distant(ctx, s3, whole)
}

// distant is P5b.
func (h *harness) distant(ctx context.Context, s3 *server, b *bucket) error {
	proxy, err := h.serve(ctx, "delay", "-to", s3.address)
	if err != nil {
		return err
	}
	defer proxy.stop()
	// For kbsync the proxy is another endpoint. The first sync through it recognizes the objects.
	first := h.syncBucket("kbsync sync", b, proxy.address)
	if _, err := first.run(ctx); err != nil {
		return err
	}
	if err := ask(ctx, http.MethodPost, "http://"+proxy.address+"/-/delay?is="+distance.String(), nil, nil); err != nil {
		return err
	}
	all, err := h.alternate(ctx, h.scale.slowRounds, "s",
		first,
		h.bare(b, proxy.address),
		h.rcloneBucket(b, proxy.address, "--fast-list"),
		h.rcloneBucket(b, proxy.address, "--checkers", "64"),
	)
	if err != nil {
		return err
	}
	r := h.results.row("P5b", fmt.Sprintf("%d objects on S3 with %v a request, nothing changed", b.files, distance), all...)
	r.atMost("time compared with rclone's fastest", all[0].value()/min(all[2].value(), all[3].value()), "x", 0.25)
	r.atMost("time compared with reading the pages one by one", all[0].value()/all[1].value(), "x", 0)
	r.atMost("peak memory", all[0].peak(), "MiB", 80)
	return nil
}

// fill makes a bucket with the files of a corpus, and syncs it.
func (h *harness) fill(ctx context.Context, s3 *server, name string, c corpus) (*bucket, error) {
	dir, err := h.corpus(c)
	if err != nil {
		return nil, err
	}
	state, err := h.newState()
	if err != nil {
		return nil, err
	}
	b := &bucket{name: name, dir: dir, state: state, files: c.Files}
	begun := time.Now()
	put := command{path: h.programs.peer, args: []string{"put", "-endpoint", "http://" + s3.address, "-bucket", name, dir}}
	if _, err := h.run(ctx, put); err != nil {
		return nil, err
	}
	h.logf("bucket of %d objects in %.1f s", b.files, time.Since(begun).Seconds())
	if err := h.api.reset(ctx, settings{}); err != nil {
		return nil, err
	}
	begun = time.Now()
	first := h.syncBucket("kbsync sync", b, s3.address)
	if _, err := first.run(ctx); err != nil {
		return nil, err
	}
	got, err := h.api.counts(ctx)
	if err == nil && got.Documents != b.files {
		err = fmt.Errorf("%d documents arrived, not %d", got.Documents, b.files)
	}
	h.logf("first sync of it in %.1f s", time.Since(begun).Seconds())
	return b, err
}

// syncBucket is a sync of a bucket through an address. The name of the sync is in a config, so that it stays the same sync.
func (h *harness) syncBucket(name string, b *bucket, address string) contestant {
	return contestant{name: name, run: func(ctx context.Context) (sample, error) {
		text := fmt.Sprintf("api:\n  url: %q\n  rate: \"off\"\nstate: %q\nsyncs:\n  - name: %s\n    root: %q\n    knowledge_base: 876\n", h.api.url(), b.state, b.name,
			"s3://"+b.name+"?endpoint=http://"+address+"&region=us-east-1&use_path_style=true&request_checksum_calculation=when_required")
		config := filepath.Join(filepath.Dir(b.state), "kbsync.yaml")
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return sample{}, err
		}
		u, err := h.run(ctx, command{path: h.programs.kbsync, args: []string{"sync", "--config", config, "-q", "--accept-new-state"}})
		return sample{u.Seconds, u}, err
	}}
}

// bare only reads the pages of the listing.
func (h *harness) bare(b *bucket, address string) contestant {
	return h.seconds("reading the pages", "", command{path: h.programs.peer, args: []string{"pages", "-endpoint", "http://" + address, "-bucket", b.name}})
}

// rcloneBucket compares the directory with the bucket at the lowest cost: by size, and by the server's time.
func (h *harness) rcloneBucket(b *bucket, address string, mode ...string) contestant {
	const noTransfer = 9
	args := []string{"sync", b.dir, ":s3:" + b.name, "--use-server-modtime", "--update", "--error-on-no-transfer"}
	name := "rclone sync"
	for _, word := range mode {
		name += " " + word
	}
	return h.seconds(name, h.programs.rcloneMissing, command{path: h.programs.rclone, args: append(args, mode...), exit: []int{noTransfer}, env: []string{
		"RCLONE_S3_PROVIDER=Other", "RCLONE_S3_ENDPOINT=http://" + address, "RCLONE_S3_REGION=us-east-1",
		"RCLONE_S3_ACCESS_KEY_ID=" + s3Key, "RCLONE_S3_SECRET_ACCESS_KEY=" + s3Secret,
	}})
}
