// llhttp, the parser of Node.js, with none of its leniences: node llhttp.cjs < CASES
//
// Reads a line of JSON for each case, `{"bytes": HEX, ...}`, and prints for each what it makes of
// the bytes: `{"got": [[METHOD, TARGET, BODY], ...], "error": CODE or null}`, target and body in
// hex. After an upgrade that nobody asked for, the rest is read by a new parser, as Node does.

process.noDeprecation = true;
const { HTTPParser, allMethods } = process.binding('http_parser');
const lines = require('readline').createInterface({ input: process.stdin });

function parse(bytes) {
  const got = [];
  let error = null;
  for (let rest = bytes; rest.length && !error; ) {
    const parser = new HTTPParser();
    let request;
    let url = '';
    let upgraded = false;
    parser.initialize(HTTPParser.REQUEST, {}, 1 << 20, 0);
    parser[HTTPParser.kOnHeaders] = (headers, part) => { url += part; };
    parser[HTTPParser.kOnHeadersComplete] = (major, minor, headers, method, target, status, text, upgrade) => {
      request = [allMethods[method], Buffer.from(url || target, 'latin1').toString('hex'), ''];
      url = '';
      upgraded = upgrade;
      return 0;
    };
    parser[HTTPParser.kOnBody] = (data) => { request[2] += data.toString('hex'); };
    parser[HTTPParser.kOnMessageComplete] = () => {
      got.push(request);
      // Trailers are told by kOnHeaders too, with the URL once more.
      url = '';
    };
    const read = parser.execute(rest);
    error = read instanceof Error ? read.code : null;
    rest = upgraded && !error && read < rest.length ? rest.subarray(read) : rest.subarray(rest.length);
  }
  return { got, error };
}

lines.on('line', (line) => {
  process.stdout.write(JSON.stringify(parse(Buffer.from(JSON.parse(line).bytes, 'hex'))) + '\n');
});
