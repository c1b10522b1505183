package main

import (
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// writeBill writes the software bill of materials of a program, as CycloneDX: the modules that the Go linker recorded in it, and Go
// itself. So it names what is in the program, and not what go.mod lists.
func (r *release) writeBill(p program, licenses map[string]licensed) error {
	info, err := buildinfo.ReadFile(p.file)
	if err != nil {
		return err
	}
	sum, err := checksum(p.file)
	if err != nil {
		return err
	}
	bill, err := r.bill(p, info, sum, licenses)
	if err != nil {
		return err
	}
	f, err := r.create(r.name(p, ".cdx.json"))
	if err != nil {
		return err
	}
	return errors.Join(cyclonedx.NewBOMEncoder(f, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bill), f.Close())
}

func (r *release) bill(p program, info *debug.BuildInfo, sum string, licenses map[string]licensed) (*cyclonedx.BOM, error) {
	version := strings.TrimPrefix(r.version, "v")
	self := cyclonedx.Component{
		BOMRef: "kbsync", Type: cyclonedx.ComponentTypeApplication, Name: "kbsync", Version: version,
		PackageURL: packageURL(info.Main.Path, r.version) + "?type=module&goos=" + p.os + "&goarch=" + p.arch,
		Licenses:   &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}},
		Hashes:     &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: sum}},
	}
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	components := []cyclonedx.Component{{
		BOMRef: packageURL("std", goVersion), Type: cyclonedx.ComponentTypeLibrary, Name: "std", Version: goVersion,
		PackageURL: packageURL("std", goVersion), Scope: cyclonedx.ScopeRequired, Licenses: billLicenses(licenses["std"]),
	}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		// The sum of a module is the SHA-256 of the list of its files: "h1:" and base64.
		hash, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:"))
		if err != nil || len(hash) != 32 {
			return nil, fmt.Errorf("module %s has no sum: %q", m.Path, m.Sum)
		}
		components = append(components, cyclonedx.Component{
			BOMRef: packageURL(m.Path, m.Version), Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version,
			PackageURL: packageURL(m.Path, m.Version), Scope: cyclonedx.ScopeRequired,
			Hashes:   &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(hash)}},
			Licenses: billLicenses(licenses[m.Path]),
		})
	}
	var refs []string
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	bill := cyclonedx.NewBOM()
	bill.Metadata = &cyclonedx.Metadata{Timestamp: r.time.Format(time.RFC3339), Component: &self}
	bill.Components = &components
	bill.Dependencies = &[]cyclonedx.Dependency{{Ref: self.BOMRef, Dependencies: &refs}}
	return bill, nil
}

// packageURL returns the purl of a Go module.
func packageURL(path, version string) string {
	return "pkg:golang/" + path + "@" + url.QueryEscape(version)
}

// billLicenses returns the licences of a module as the bill has them.
func billLicenses(l licensed) *cyclonedx.Licenses {
	var all cyclonedx.Licenses
	for _, id := range l.ids {
		all = append(all, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: id}})
	}
	return &all
}
