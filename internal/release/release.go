// Package release says which release of puppetsrv this is.
package release

// Version is the version of every program of the project, as in CHANGELOG.md.
const Version = "0.1.0"
