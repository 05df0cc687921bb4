-- A corporate park: buildings, tenants, leases, and a million meter readings.
CREATE TYPE heating AS ENUM ('district', 'gas', 'heat pump');
CREATE TABLE building (
  id int PRIMARY KEY, name text NOT NULL, street text, heating heating, area numeric(10, 2), built date, place point,
  tags text[], info jsonb, plan bytea, active bool);
INSERT INTO building
SELECT i, 'Hall ' || i, CASE WHEN i % 7 > 0 THEN 'Straße der Einheit ' || i END,
  (ARRAY['district', 'gas', 'heat pump'])[1 + i % 3]::heating, (i * 137.5) % 9000, date '1990-01-01' + i * 31, point(i, -i),
  ARRAY['east', 'a "b"', NULL], jsonb_build_object('floors', i % 9, 'note', E'line\nbreak'), decode(md5(i::text), 'hex'), i % 2 = 0
FROM generate_series(1, 200) i;

CREATE TABLE tenant (id int PRIMARY KEY, name text, phone text, vat text, remark text, token uuid);
INSERT INTO tenant
SELECT i, (ARRAY['Müller & Söhne', 'Ελληνικά ΑΕ', 'ООО Ромашка', '株式会社 東京', 'شركة النور', 'Smith, "Jones" Ltd'])[1 + i % 6] || ' ' || i,
  '+49 30 ' || i, '=HYPERLINK("http://example.com/' || i || '")',
  CASE WHEN i = 3 THEN repeat('long text ', 104858) WHEN i = 4 THEN '' WHEN i % 5 > 0 THEN E'@SUM(A1)\r\nsecond line' END, md5(i::text)::uuid
FROM generate_series(1, 300) i;

CREATE TABLE lease (
  id int PRIMARY KEY, building int REFERENCES building, tenant int REFERENCES tenant, starts date, ends date, rent numeric(12, 2),
  signed timestamptz, notice interval, period daterange, terms json);
INSERT INTO lease
SELECT i, 1 + i % 200, 1 + i % 300, date '2020-01-01' + i % 2000, CASE WHEN i % 11 = 0 THEN 'infinity' ELSE date '2027-01-01' + i END,
  (i * 97.35) % 20000, timestamptz '2019-12-31 23:59:59.123456+02' + i * interval '1 hour', make_interval(months => i % 12, days => -(i % 3)),
  daterange('2020-01-01', '2027-01-01'), E'{"deposit": 3,\n "pets": false}'
FROM generate_series(1, 12000) i;

CREATE TABLE odd (
  id int PRIMARY KEY, n numeric, f4 real, f8 double precision, big bigint, d date, ts timestamp, tz timestamptz, t time, m money, addr inet,
  ints int[], js json, "se""c, ret" text);
INSERT INTO odd VALUES
  (1, 123456789012345678901234567890.123456789, 0.1, 0.1, 9223372036854775807, '0044-03-15 BC', '2026-11-30 10:15:00.5',
   '2026-11-30 10:15:00+05:45', '23:59:59.999', '12.50', '10.0.0.1/8', '{1,NULL,3}', E'[1,\n2]', 'x'),
  (2, 'NaN', 'Infinity', '-Infinity', -1, 'infinity', '-infinity', 'infinity', '24:00', NULL, NULL, '{}', NULL, E'tab\tcontrol\x01 "q" 😀'),
  (3, -0.00000012, NULL, 1e300, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE reading (id bigint, meter int, building int, at timestamptz, kwh numeric(12, 3), temperature double precision, quality text, unit text);
INSERT INTO reading
SELECT i, i % 5000, 1 + i % 200, timestamptz '2024-01-01 00:00+00' + i * interval '15 seconds', (i % 100000) / 1000.0 + 0.125,
  15 + (i % 200) / 10.0, (ARRAY['measured', 'estimated', 'missing'])[1 + i % 3], 'kWh'
FROM generate_series(1, 1000000) i;
ANALYZE;
