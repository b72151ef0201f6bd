// Cross-region replication streams as code.
package replicator
