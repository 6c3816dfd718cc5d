-- How a program that knows no later schema than the one before stores a commit of a block and a user: written by hand after
-- this release's statement, since no older release had this backend. What it last read of the head is in public.known,
-- in place of parameters; what it computes (hashes, checks) does not matter. It is kept as it is: newer programs have to
-- be safe from it.
WITH cas AS (
  UPDATE "ghostwire"."ghostwire_meta" AS m SET "position" = k."position" + 1, "last_commit" = gen_random_uuid(),
    "serial" = k."serial" + 1, "block" = gen_random_uuid(), "hash" = sha256(k."hash"), "time" = k."time",
    "checkpoint" = k."serial" + 1, "schema_version" = k."schema_version", "oldest_reader" = k."oldest_reader",
    "revision" = k."revision" + 1, "row_check" = 0
  FROM public.known AS k
  WHERE m."one" AND ROW(m."store", m."side", m."lineage", m."epoch", m."position", m."last_commit", m."serial",
    m."block", m."hash", m."time", m."checkpoint", m."oldest_block", m."schema_version", m."oldest_reader",
    m."filling", m."credential_key", m."role", m."migration", m."peer", m."part", m."revision", m."row_check")
    IS NOT DISTINCT FROM ROW(k."store", k."side", k."lineage", k."epoch", k."position", k."last_commit",
    k."serial", k."block", k."hash", k."time", k."checkpoint", k."oldest_block", k."schema_version",
    k."oldest_reader", k."filling", k."credential_key", k."role", k."migration", k."peer", k."part",
    k."revision", k."row_check") AND m."halted" IS NULL RETURNING 1 AS stored
), p1 AS (
  INSERT INTO "ghostwire"."users" ("id", "name", "identity", "created_at", "updated_at", "revision",
    "row_check") SELECT gen_random_uuid(), 'of an older writer', '{}', now(), now(), 1, 0 FROM cas
) SELECT cas.stored FROM cas
