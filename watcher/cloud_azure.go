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
	"github.com/aws/aws-sdk-go-v2/aws"
	mux "gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // its opener, which sends a SAS token to the account only, is available by its scheme alone

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
		return service{}, errors.New("gocloud.dev has no client of Azure")
	}
	at, err := url.Parse(client.URL()) // it may contain a signature
	if err != nil {
		return service{}, errors.New("the address of the Azure account is not a URL; check the account and the domain")
	}
	return service{
		objects:  &azureContainer{client, pageSize},
		identity: "azblob://" + at.Host + at.Path,
		// Accounts with a hierarchical namespace list directory by directory, and nothing distinguishes them from other accounts.
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
		return nil, "", errors.New("the listing has no segment")
	}
	page, err := azureObjects(out.Segment.BlobItems)
	return page, aws.ToString(out.NextMarker), err
}

func (c *azureContainer) level(ctx context.Context, prefix, token string) ([]object, []string, string, error) {
	options := &container.ListBlobsHierarchyOptions{}
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
	out, err := c.client.NewListBlobsHierarchyPager("/", options).NextPage(ctx)
	if err != nil {
		return nil, nil, "", azureFault(err)
	}
	if out.Segment == nil {
		return nil, nil, "", errors.New("the listing has no segment")
	}
	objects, err := azureObjects(out.Segment.BlobItems)
	if err != nil {
		return nil, nil, "", err
	}
	folders := make([]string, 0, len(out.Segment.BlobPrefixes))
	for _, p := range out.Segment.BlobPrefixes {
		folders = append(folders, aws.ToString(p.Name))
	}
	return objects, folders, aws.ToString(out.NextMarker), nil
}

// azureObjects returns the objects of a page.
func azureObjects(items []*container.BlobItem) ([]object, error) {
	page := make([]object, 0, len(items))
	for _, item := range items {
		if item.Name == nil || item.Properties == nil {
			return nil, errors.New("the listing has a blob without a name or without properties")
		}
		if kind := item.Properties.ResourceType; kind != nil && *kind == "directory" {
			continue
		}
		page = append(page, azureObject(*item.Name, item.Properties))
	}
	return page, nil
}

// azureObject returns the object of a listed blob.
func azureObject(name string, p *container.BlobProperties) object {
	o := object{key: name}
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
	case p.AccessTier != nil && *p.AccessTier == blob.AccessTierArchive:
		o.unreadable = "archived"
	case p.CustomerProvidedKeySHA256 != nil && *p.CustomerProvidedKeySHA256 != "":
		o.unreadable = "encrypted with a key of its owner"
	case p.ContentEncoding != nil && checkEncoding(*p.ContentEncoding) != nil:
		o.unreadable = "stored with Content-Encoding " + *p.ContentEncoding
	}
	return o
}

// quoted puts an ETag into quotes: a response has them, a listing does not.
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
			// A deleted blob fails the condition as well.
			if _, gone := c.client.NewBlobClient(key).GetProperties(ctx, nil); bloberror.HasCode(gone, bloberror.BlobNotFound) {
				return nil, azureFault(gone)
			}
		}
		return nil, err
	}
	version := ""
	if out.ETag != nil {
		version = quoted(string(*out.ETag))
	}
	return rangeBody(out.Body, version, out.ContentLength, out.ContentRange, out.ContentEncoding, fp, offset)
}

func (c *azureContainer) close() error { return nil }

// azureFault classifies an error.
func azureFault(err error) error {
	api, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		if _, ok := errors.AsType[interface {
			error
			NonRetriable()
		}](err); ok {
			return &cloudFault{faultPermanent, withoutQuery(err)} // from the credentials
		}
		return withoutQuery(err)
	}
	described := &cloudError{fmt.Sprintf("%s (HTTP %d)", api.ErrorCode, api.StatusCode), err}
	switch bloberror.Code(api.ErrorCode) {
	case bloberror.ContainerNotFound:
		return &cloudFault{faultNoBucket, described}
	case bloberror.BlobNotFound:
		return &cloudFault{faultNoObject, described}
	case bloberror.ConditionNotMet, bloberror.TargetConditionNotMet, bloberror.InvalidRange:
		return &cloudFault{faultChanged, described}
	case bloberror.BlobArchived:
		described.text += "; rehydrate it or exclude it"
		return &cloudFault{faultPermanent, described}
	case bloberror.BlobUsesCustomerSpecifiedEncryption:
		described.text += "; it is encrypted with a customer-provided key, which kbsync does not have; exclude it"
		return &cloudFault{faultPermanent, described}
	}
	switch {
	case api.StatusCode == http.StatusPreconditionFailed || api.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return &cloudFault{faultChanged, described}
	case api.StatusCode == http.StatusUnauthorized || api.StatusCode == http.StatusForbidden:
		described.text += "; check the credentials and their permissions (docs/buckets.md)"
		return &cloudFault{faultPermanent, described}
	case api.StatusCode == http.StatusTooManyRequests || api.StatusCode == http.StatusRequestTimeout || api.StatusCode >= 500:
		return described
	}
	return &cloudFault{faultPermanent, described}
}
