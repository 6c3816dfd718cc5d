-- Keys whose text is known, as Headscale 0.29.3 keeps them: an API key, a reusable and a one-time pre-auth
-- key with bcrypt hashes, and one in plain text. After the prefix each has the secret
-- 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE migrations(id text PRIMARY KEY);
INSERT INTO migrations VALUES('202607241200-clear-tagged-node-expiry');
CREATE TABLE users(id integer PRIMARY KEY AUTOINCREMENT, name text, created_at datetime, provider text, provider_identifier text);
INSERT INTO users VALUES(1,'ann','2026-01-02 03:04:05+00:00',NULL,NULL);
INSERT INTO users VALUES(2,'bob','2026-01-02 03:04:05+00:00','oidc','https://auth.example/bob');
CREATE TABLE pre_auth_keys(id integer PRIMARY KEY AUTOINCREMENT, key text, prefix text, hash blob, user_id integer, reusable numeric, ephemeral numeric, used numeric, tags text, created_at datetime, expiration datetime);
INSERT INTO pre_auth_keys VALUES(1,'','abcdefABC-_1',CAST('$2b$04$ABCDEFGHIJKLMNOPQRSTUu5pUYnC0pESokJLt705oY3/ycNDD4BIW' AS BLOB),1,1,0,0,'[]','2026-01-02 03:04:05+00:00','2026-01-03 00:00:00+00:00');
INSERT INTO pre_auth_keys VALUES(2,'','abcdefABC-_2',CAST('$2b$04$ABCDEFGHIJKLMNOPQRSTUu5pUYnC0pESokJLt705oY3/ycNDD4BIW' AS BLOB),1,0,0,1,'["tag:web"]','2026-01-02 03:04:05+00:00','2026-01-03 00:00:00+00:00');
INSERT INTO pre_auth_keys VALUES(3,'000000000000000000000000000000000000000000000abd',NULL,NULL,2,1,0,0,'[]','2026-01-02 03:04:05+00:00',NULL);
CREATE TABLE api_keys(id integer PRIMARY KEY AUTOINCREMENT, prefix text, hash blob, created_at datetime, expiration datetime, last_seen datetime);
INSERT INTO api_keys VALUES(1,'abcdefABC-_3',CAST('$2b$04$ABCDEFGHIJKLMNOPQRSTUu5pUYnC0pESokJLt705oY3/ycNDD4BIW' AS BLOB),'2026-01-02 03:04:05+00:00',NULL,NULL);
CREATE TABLE nodes(id integer PRIMARY KEY AUTOINCREMENT, machine_key text, node_key text, ipv4 text, ipv6 text, hostname text, given_name text, user_id integer, register_method text, tags text, auth_key_id integer, approved_routes text, host_info text, created_at datetime);
INSERT INTO nodes VALUES(1,'mkey:0101010101010101010101010101010101010101010101010101010101010101','nodekey:8181818181818181818181818181818181818181818181818181818181818181','100.64.0.1','fd7a:115c:a1e0::1','host1','host1',1,'authkey','[]',1,'["10.0.0.0/8"]','{"RoutableIPs":["10.0.0.0/8"]}','2026-01-02 03:04:05+00:00');
INSERT INTO nodes VALUES(2,'mkey:0202020202020202020202020202020202020202020202020202020202020202','nodekey:8282828282828282828282828282828282828282828282828282828282828282','100.64.0.2','fd7a:115c:a1e0::2','host2','host2',1,'authkey','["tag:web"]',2,'[]','{}','2026-01-02 03:04:05+00:00');
INSERT INTO nodes VALUES(3,'mkey:0303030303030303030303030303030303030303030303030303030303030303','nodekey:8383838383838383838383838383838383838383838383838383838383838383','100.64.0.3','fd7a:115c:a1e0::3','host3','host3',2,'authkey','[]',3,'[]','{}','2026-01-02 03:04:05+00:00');
INSERT INTO nodes VALUES(4,'mkey:0404040404040404040404040404040404040404040404040404040404040404','nodekey:8484848484848484848484848484848484848484848484848484848484848484','100.64.0.4','fd7a:115c:a1e0::4','host4','host4',2,'oidc','[]',NULL,'[]','{}','2026-01-02 03:04:05+00:00');
CREATE TABLE policies(id integer PRIMARY KEY AUTOINCREMENT, data text, created_at datetime);
COMMIT;
