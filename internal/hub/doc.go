// Package hub fetches repositories from the Hugging Face hub, or from a server that speaks
// its protocol, into the cache that huggingface_hub has: what one of them has fetched the
// other finds (https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
//
//	<cache>/models--org--name/
//	    blobs/<sha256, or git's SHA-1 of a small file>
//	    refs/main                       the commit that a name stands for
//	    snapshots/<commit>/config.json  -> ../../blobs/...
//
// A large file is fetched in parts, several at a time; parts that are there are not fetched
// again, in this run or in another. A blob gets its name when its size and its hash are what
// the hub says, and a snapshot gets its files when all of them are there, so that what
// is found in the cache is whole. Servers may fail, stall, cut off and redirect; the token
// goes to no other host than the hub's.
//
// The package knows nothing of models beyond which files of a repository one needs.
package hub
