//go:build nocloud

package snapshot

import (
	"context"
	"errors"
	"net/url"
)

// openObjects returns an error, because this build supports no cloud.
func openObjects(context.Context, *url.URL) (objects, error) {
	return nil, errors.New("this kbsync was built without buckets (the nocloud tag); use a build with them, or kbsync state export")
}
