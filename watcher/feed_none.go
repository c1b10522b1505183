//go:build nocloud

package watcher

import (
	"context"
	"errors"
	"net/url"
)

var errNoBuckets = errors.New("this kbsync was built without buckets (the nocloud tag); use a build with them")

// openerOf returns an error, because this build supports no bucket.
func openerOf(*url.URL, url.Values, string) (func(context.Context) (subscription, error), error) {
	return nil, errNoBuckets
}

// CheckNotifications returns an error, because this build supports no bucket.
func CheckNotifications(context.Context, string, string) (string, error) { return "", errNoBuckets }
