import axios from "axios";
console.log(JSON.stringify((await axios.get(process.argv[2])).data));
