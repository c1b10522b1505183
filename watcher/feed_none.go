//go:build nocloud

package watcher

import (
	"context"
	"errors"
	"net/url"
)

var errNoBuckets = errors.New("this kbsync was built without buckets (the nocloud tag); take one that was built with them")

// openerOf says that this build has no buckets, and so no notifications of any.
func openerOf(*url.URL, url.Values, string) (func(context.Context) (subscription, error), error) {
	return nil, errNoBuckets
}

// CheckNotifications says the same.
func CheckNotifications(context.Context, string, string) (string, error) { return "", errNoBuckets }
