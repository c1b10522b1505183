//go:build !nocloud

package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	mux "gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // its opener keeps a SAS token from going elsewhere, and is reached by its scheme alone

	"github.com/kbsync/kbsync/state"
)

// An azureContainer is a container of Azure Blob Storage.
type azureContainer struct {
	client   *container.Client
	pageSize int
}

func openAzure(ctx context.Context, u *url.URL, pageSize int) (service, error) {
	bucket, err := mux.DefaultURLMux().OpenBucketURL(ctx, u)
	if err != nil {
		return service{}, withoutQuery(err)
	}
	var client *container.Client
	if !bucket.As(&client) {
		return service{}, errors.New("gocloud.dev gives no client of Azure")
	}
	at, err := url.Parse(client.URL()) // which may have a signature in it
	if err != nil {
		return service{}, errors.New("the address of the Azure account is no URL; look at the account and the domain")
	}
	return service{
		objects:  &azureContainer{client, pageSize},
		identity: "azblob://" + at.Host + at.Path,
		// Accounts with a hierarchical namespace list directory by directory, and nothing tells them from others.
		unordered: true,
	}, nil
}

func (c *azureContainer) page(ctx context.Context, prefix, token string) ([]object, string, error) {
	options := &container.ListBlobsFlatOptions{}
	if c.pageSize > 0 {
		size := int32(c.pageSize)
		options.MaxResults = &size
	}
	if prefix != "" {
		options.Prefix = &prefix
	}
	if token != "" {
		options.Marker = &token
	}
	out, err := c.client.NewListBlobsFlatPager(options).NextPage(ctx)
	if err != nil {
		return nil, "", azureFault(err)
	}
	if out.Segment == nil {
		return nil, "", errors.New("the listing is empty and says so in no way that is known")
	}
	page := make([]object, 0, len(out.Segment.BlobItems))
	for _, item := range out.Segment.BlobItems {
		if item.Name == nil || item.Properties == nil {
			return nil, "", errors.New("the listing has a blob without a name or without properties")
		}
		p := item.Properties
		o := object{key: *item.Name}
		if p.ContentLength != nil {
			o.fingerprint.Size = *p.ContentLength
		}
		if p.LastModified != nil {
			o.fingerprint.MTime = p.LastModified.UnixNano()
		}
		if p.ETag != nil {
			o.fingerprint.ETag = quoted(string(*p.ETag))
		}
		switch {
		case p.ResourceType != nil && *p.ResourceType == "directory":
			continue
		case p.AccessTier != nil && *p.AccessTier == blob.AccessTierArchive:
			o.unreadable = "archived"
		case p.CustomerProvidedKeySHA256 != nil && *p.CustomerProvidedKeySHA256 != "":
			o.unreadable = "encrypted with a key of its owner"
		case p.ContentEncoding != nil && checkEncoding(*p.ContentEncoding) != nil:
			o.unreadable = "stored with Content-Encoding " + *p.ContentEncoding
		}
		page = append(page, o)
	}
	next := ""
	if out.NextMarker != nil {
		next = *out.NextMarker
	}
	return page, next, nil
}

// quoted gives an ETag its quotes, which a listing leaves out and an answer has.
func quoted(etag string) string {
	return `"` + strings.Trim(etag, `"`) + `"`
}

func (c *azureContainer) open(ctx context.Context, key string, fp state.Fingerprint, offset int64) (io.ReadCloser, error) {
	tag := azcore.ETag(fp.ETag)
	out, err := c.client.NewBlobClient(key).DownloadStream(ctx, &blob.DownloadStreamOptions{
		Range:            blob.HTTPRange{Offset: offset},
		AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &tag}},
	})
	if err != nil {
		err = azureFault(err)
		if faultOf(err) == faultChanged {
			// A deleted blob does not meet the condition either.
			if _, gone := c.client.NewBlobClient(key).GetProperties(ctx, nil); bloberror.HasCode(gone, bloberror.BlobNotFound) {
				return nil, azureFault(gone)
			}
		}
		return nil, err
	}
	if out.ETag != nil && quoted(string(*out.ETag)) != fp.ETag {
		out.Body.Close()
		return nil, changed()
	}
	return rangeBody(out.Body, out.ContentLength, out.ContentRange, out.ContentEncoding, fp.Size, offset)
}

func (c *azureContainer) close() error { return nil }

// azureFault tells what follows from an error.
func azureFault(err error) error {
	api, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		if _, ok := errors.AsType[interface {
			error
			NonRetriable()
		}](err); ok {
			return &cloudFault{faultPermanent, withoutQuery(err)} // of the credentials
		}
		return withoutQuery(err)
	}
	said := &cloudError{fmt.Sprintf("%s (HTTP %d)", api.ErrorCode, api.StatusCode), err}
	switch bloberror.Code(api.ErrorCode) {
	case bloberror.ContainerNotFound:
		return &cloudFault{faultNoBucket, said}
	case bloberror.BlobNotFound:
		return &cloudFault{faultNoObject, said}
	case bloberror.ConditionNotMet, bloberror.TargetConditionNotMet, bloberror.InvalidRange:
		return &cloudFault{faultChanged, said}
	case bloberror.BlobArchived:
		said.text += "; rehydrate it or exclude it"
		return &cloudFault{faultPermanent, said}
	case bloberror.BlobUsesCustomerSpecifiedEncryption:
		said.text += "; it is encrypted with a key of its owner, which kbsync does not have; exclude it"
		return &cloudFault{faultPermanent, said}
	}
	switch {
	case api.StatusCode == http.StatusPreconditionFailed || api.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return &cloudFault{faultChanged, said}
	case api.StatusCode == http.StatusUnauthorized || api.StatusCode == http.StatusForbidden:
		said.text += "; look at the credentials and what they permit (docs/buckets.md)"
		return &cloudFault{faultPermanent, said}
	case api.StatusCode == http.StatusTooManyRequests || api.StatusCode == http.StatusRequestTimeout || api.StatusCode >= 500:
		return said
	}
	return &cloudFault{faultPermanent, said}
}
